import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from trainables.text.scores import SCORES, best_threshold


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_scores_equal_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    for size in (1, 3, 20, 200):
        truth, predicted = rng.integers(0, classes, (2, size))
        matrix = confusion_matrix(truth, predicted, labels=range(classes))
        assert float(SCORES["macro_f1"](matrix)) == pytest.approx(
            f1_score(truth, predicted, average="macro", zero_division=0)
        )
        recall = recall_score(truth, predicted, average="macro", labels=np.unique(truth))
        assert float(SCORES["balanced_accuracy"](matrix)) == pytest.approx(recall)


def test_scores_of_many_matrices_are_those_of_each():
    matrices = np.random.default_rng(0).integers(0, 9, (4, 5, 3, 3))
    for score in SCORES.values():
        assert np.allclose(score(matrices), [[score(one) for one in row] for row in matrices])


def test_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(60) < 0.3
        probabilities = np.clip(0.4 * truth + rng.random(60) * 0.6, 0, 1).astype(np.float32)
        found = f1_score(truth, probabilities >= best_threshold(probabilities, truth), average="macro")
        every = [f1_score(truth, probabilities >= step, average="macro") for step in np.arange(1, 100) / 100]
        assert found == pytest.approx(max(every))
