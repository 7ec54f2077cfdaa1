"""Hyperparameter search: Ray Tune runs it, Optuna proposes, MLflow keeps it, a journal makes it resumable."""

__version__ = "0.1.0"
