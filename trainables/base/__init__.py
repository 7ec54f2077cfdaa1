"""What every task is made of: the interface, the training loop, checkpoints, files, the adapter to Ray Tune.

`trainable.py` alone knows Ray. Nothing here knows a task.
"""
