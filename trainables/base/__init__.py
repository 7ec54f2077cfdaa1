"""Code that every task shares: the interface, the training loop, checkpoints, files, the adapter to Ray Tune.

Only `trainable.py` imports Ray. No module here imports a task.
"""
