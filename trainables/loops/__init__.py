"""Other people's training loops as tasks: a Python function, or any command."""
