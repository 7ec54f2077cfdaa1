"""The trainings after the trials: the final model, finalists, balanced values over seeds, audits of early stopping.

They run on the cluster through `runtime/remote.py`.
"""
