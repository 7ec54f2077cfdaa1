"""The search in MLflow: runs, metrics, the registered model, and reading them back.

All that knows MLflow is here. It follows the journal, in a thread behind the search.
"""
