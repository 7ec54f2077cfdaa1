"""Claim: what random search finds in 32 complete trainings is found for a quarter of its epochs, mean over searches.

Searches over recorded trainings, by the real searchers and schedulers with simulated workers and time: seconds instead
of hours, so that hundreds can be compared. The tasks are TaskSet's twelve text classifiers (1,000 recorded
configurations each) and LCBench's 34 data sets (a surrogate). Every other one was used to choose settings; the figures
are of the others. The target is the best reading of 32 random configurations that were trained to the end, drawn anew
for each seed; a search that has not come there when it has spent as many epochs counts 1. Intervals are of the mean,
tasks resampled (95 %).

Three other suites: twelve tables of complete trainings, of which none can be stopped early (`trained`); LCBench's with
first epochs that show the reverse of the end (`misled`); and this project's own tasks on real data, as `record` found
them (`own`).

Peers decide through their own code: Optuna's samplers and pruners, Ray Tune's ASHA with OptunaSearch, and, in an
environment of their own (`peers.txt`), Syne Tune, NePS and SMAC3. What was measured is kept in
`benchmarks/curves/results.csv`, a row a search, so that it can be run in parts.
"""
