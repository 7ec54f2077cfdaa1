"""What is tried next and what is stopped: searchers, schedulers, Pareto fronts, warm starts.

All that knows Optuna is here. Everything is a function of what it was told, so that a replay comes to the same.
"""
