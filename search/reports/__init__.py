"""What a search came to, or would come to: summaries, comparison, report, simulation, forecasts.

Nothing here changes a search.
"""
