"""Defects that are known, and what the sequences do not try because of each.

Delete an entry to have it tried; the dictionary is empty once all of them are mended. `FUZZ_TRY=names,database` tries
these two whatever stands here, and `FUZZ_TRY=all` everything.
"""

import os

HELD_BACK = {
    "names": "names that MLflow refuses, of metrics, hyperparameters and objectives",
    "numpy": "NumPy scalars as values of hyperparameters",
    "query": "objectives with `+`, `&`, `=` and the like, which travel in a query string",
    "lock": "a second command that is refused and yet changes search.json",
    "flips": "flipped bits in journal, search.json and checkpoints",
    "torn": "damaged states other than a truncated checkpoint of a trial",
    "description": "a damaged search.json or `delivered`",
    "database": "a database that is deleted, older, or another one",
    "orphans": "models that a killed registration leaves behind",
    "wide": "whole numbers from 0 to 2**40, and metrics beyond every float",
    "reserved": "metrics that are called like figures which MLflow is given of each trial, such as `seconds`",
    "task": "a hyperparameter called `task`, which a logged model has as well",
    "shortened": "a journal that lost lines which MLflow has: the next lines are taken for these",
}
for _name in os.environ.get("FUZZ_TRY", "").split(","):
    if _name == "all":
        HELD_BACK.clear()
    HELD_BACK.pop(_name, None)
