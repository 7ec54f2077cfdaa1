"""Searches of other tools, read and written: Optuna's studies, Ray Tune's experiment folders."""
