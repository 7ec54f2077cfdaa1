"""The search while it runs: proposals, decisions, trials on Ray, checkpoints, failures, interruptions.

All that knows Ray is here. What trains beside the trials (final trainings, comparisons, audits) is in `final`.
"""
