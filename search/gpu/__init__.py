"""What can be found out about a GPU: what it does, and what the tasks make of it. Nothing here needs Ray."""
