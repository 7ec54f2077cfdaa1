"""Copy this file beside your script. It needs nothing but Python; without a search it prints what a person reads.

from report import known_epochs, params, report

values = params(lr=1e-3, epochs=10)          # the search's, or these where nobody searches
for epoch in range(known_epochs() + 1, values["epochs"] + 1):
    ...
    report(epoch=epoch, val_loss=loss)
"""

import json
import os
from pathlib import Path


def params(**defaults):
    """The hyperparameters of this trial, over the defaults; `epochs` and `seed` are among them."""
    given = json.loads(os.environ.get("SEARCH_PARAMS", "{}"))
    told = {name: int(os.environ[f"SEARCH_{name.upper()}"]) for name in ("epochs", "seed") if given}
    return {**defaults, **told, **given}


def report(**metrics):
    """Reports an epoch. Of several processes of one training only the first does."""
    if os.environ.get("RANK", "0") == "0":
        print("@search " + json.dumps({name: float(value) for name, value in metrics.items()}), flush=True)


def folder():
    """A folder that is the same after a kill: for checkpoints."""
    return Path(os.environ.get("SEARCH_FOLDER") or ".")


def known_epochs():
    """So many epochs were reported before a kill; go on from a checkpoint of that one, or begin anew."""
    return int(os.environ.get("SEARCH_EPOCH", 0))
