"""The search in MLflow: its runs, its metrics and its registered model; and the searches of a tracking server.

Only this package imports MLflow. Outside it, `search/core/store.py` builds the address of MLflow's database, and the
command `ui` starts MLflow's server. `tracker.py` follows the journal from a thread of its own, so that no trial waits.
"""
