"""Runs the trials of a search on Ray: placement, workers, checkpoints, failures, budget clock, interruptions.

Only this package and `trainables/base/trainable.py` import Ray. `search/exchange/ray_results.py` reads files that Ray
Tune wrote. The trainings after the trials are in `search/final`.
"""
