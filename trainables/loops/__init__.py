"""Users' own training loops as tasks: a Python function, or any command."""
