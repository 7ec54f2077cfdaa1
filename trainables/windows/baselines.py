"""The baseline of the task. It is fitted in seconds with every search, to train and validation like the final model."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.windows.data import ImageSplit
from trainables.windows.gradients import described

#: The largest number of training pictures. The time of `SVC` grows with the square of this number.
FITTED = 5000
#: `C` of the support vector machine: a weak penalty, which is not tuned.
STRENGTH = 10.0
#: The values of `C` of the logistic regression; validation chooses. TrashNet at 224 pixels: test accuracy 0.896 with
#: 0.001, 0.906 with 0.003, 0.903 with 0.03.
PENALTIES = (0.001, 0.003, 0.01, 0.03)
#: The largest number of steps of the logistic regression.
MOST_STEPS = 300


def baselines(train: ImageSplit, val: ImageSplit, test: ImageSplit) -> dict[str, float]:
    """The test accuracy of a simple method: `frozen_features`, or `hog` if no backbone was searched."""
    if train.features:
        return {"frozen_features": _frozen(train, val, test)}
    return _hog(train, val, test)


def _frozen(train: ImageSplit, val: ImageSplit, test: ImageSplit) -> float:
    """Logistic regression on frozen features of a pretrained backbone, those with the largest pictures."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    key = max(train.features, key=lambda key: key[1])
    first, second, third = (split.features[key][0].astype(np.float32) for split in (train, val, test))

    def fitted(penalty: float, rows: np.ndarray, labels: np.ndarray) -> Any:
        machine = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=MOST_STEPS))
        return machine.fit(rows, labels)

    best = max(PENALTIES, key=lambda penalty: fitted(penalty, first, train.labels).score(second, val.labels))
    both, labels = np.concatenate([first, second]), np.concatenate([train.labels, val.labels])
    return float(fitted(best, both, labels).score(third, test.labels))


def _hog(train: ImageSplit, val: ImageSplit, test: ImageSplit) -> dict[str, float]:
    """A support vector machine on histograms of oriented gradients and of colours."""
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
