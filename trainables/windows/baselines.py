"""The baseline of the task: a support vector machine that is fitted in seconds with every search."""

from __future__ import annotations

import numpy as np

from trainables.windows.data import ImageSplit
from trainables.windows.gradients import described

#: The largest number of training pictures. The time of `SVC` grows with the square of this number.
FITTED = 5000
#: `C` of the support vector machine: a weak penalty, which is not tuned.
STRENGTH = 10.0


def baselines(train: ImageSplit, val: ImageSplit, test: ImageSplit) -> dict[str, float]:
    """Test accuracy of a support vector machine on histograms of oriented gradients and of colours, fitted to train and
    validation like the final model."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # Drawn before the splits are joined: a copy of all pictures may not fit into memory.
    count = len(train) + len(val)
    drawn = np.sort(np.random.default_rng(0).choice(count, min(count, FITTED), replace=False))
    parts = train.take(drawn[drawn < len(train)]), val.take(drawn[drawn >= len(train)] - len(train))
    labels = np.concatenate([part.labels for part in parts])
    if len(np.unique(labels)) < 2:
        return {}
    machine = make_pipeline(StandardScaler(), SVC(C=STRENGTH))
    machine.fit(described(np.concatenate([part.images for part in parts])), labels)
    return {"hog": float(np.mean(machine.predict(described(test.images)) == test.labels))}
