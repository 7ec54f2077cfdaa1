"""Results of searches: frames, summary, comparison, report, simulation, forecasts.

The functions read journals, write pages, and return lines, tables or objects. They change no search and print nothing.
"""
