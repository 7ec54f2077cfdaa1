"""How to search: configuration and space, events and journal, searchers and schedulers, and `Study`, which decides.

Only `searchers/optuna_searcher.py` imports Optuna. Nothing here imports Ray, MLflow or a terminal.
"""
