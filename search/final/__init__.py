"""The trainings after the trials: the final model, finalists, variants over seeds, audits of early stopping.

`run_jobs` in `runtime/remote.py` runs each of them on the cluster.
"""
