"""What happened in a search, and where it lies: events, journal, the state they add up to, the store.

Nothing here decides anything, and nothing here knows Ray, Optuna or MLflow.
"""
