"""Scores of ordered grades equal scikit-learn's; their intervals hold the true ones as often as they claim."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from classifier.metrics.confusion import ConfusionMatrix
from classifier.metrics.ordinal import ordinal_intervals
from classifier.metrics.scores import compute_scores


def answers(predicted_N: np.ndarray, grades: int) -> torch.Tensor:
    """Probabilities_NK of a model that predicts these grades."""
    return torch.from_numpy(0.9 * np.eye(grades)[predicted_N] + 0.1 / grades)


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, about images of one grade
@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learns(seed: int):
    rng = np.random.default_rng(seed)
    grades, count = int(rng.integers(2, 9)), int(rng.integers(2, 60))
    labels_N, predicted_N = rng.integers(0, rng.integers(1, grades + 1), (2, count))
    probabilities_NK, targets_N = answers(predicted_N, grades), torch.from_numpy(labels_N)
    confusion = ConfusionMatrix(grades)
    confusion.update(probabilities_NK.log(), targets_N)
    kappa = sk.cohen_kappa_score(labels_N, predicted_N, labels=list(range(grades)), weights="quadratic")
    for found in (compute_scores(probabilities_NK, targets_N, is_ordinal=True), confusion.scores(is_ordinal=True)):
        assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(labels_N, predicted_N))
        assert found["quadratic_kappa"] == (None if np.isnan(kappa) else pytest.approx(kappa))
    assert "quadratic_kappa" not in compute_scores(probabilities_NK, targets_N)


def test_no_error_in_20_images_makes_no_score_certain():
    labels_N = np.arange(20) % 4
    found = compute_scores(answers(labels_N, 4), torch.from_numpy(labels_N), is_ordinal=True)
    assert (found["quadratic_kappa"], found["mean_absolute_error"]) == (1, 0)
    assert 0.3 < found["intervals"]["quadratic_kappa"][0] < 0.95
    assert 0.1 < found["intervals"]["mean_absolute_error"][1] < 0.5


def test_intervals_are_defined_where_the_scores_are():
    one_grade = np.zeros((3, 3), np.int64)
    one_grade[1, 1] = 9
    assert ordinal_intervals(one_grade).keys() == {"mean_absolute_error"}
    all_off = np.zeros((3, 3), np.int64)
    all_off[0, 2] = all_off[2, 0] = 50
    (low, high), (worst, _) = (ordinal_intervals(all_off)[name] for name in ("mean_absolute_error", "quadratic_kappa"))
    assert low < 2 <= high <= 2
    assert worst == -1


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_intervals_contain_the_true_scores_as_often_as_they_claim(noise: float):
    """Of 80 images of 5 grades, each of which is one grade off, up or down, with this probability."""
    rng, held, runs = np.random.default_rng(0), {"quadratic_kappa": 0, "mean_absolute_error": 0}, 40

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels_N = rng.integers(0, 5, count)
        off_N = rng.choice([-1, 1], count) * (rng.random(count) < noise)
        return labels_N, (labels_N + off_N).clip(0, 4)

    labels_N, predicted_N = draw(1_000_000)
    true = {
        "quadratic_kappa": sk.cohen_kappa_score(labels_N, predicted_N, weights="quadratic"),
        "mean_absolute_error": sk.mean_absolute_error(labels_N, predicted_N),
    }
    for seed in range(runs):
        labels_N, predicted_N = draw(80)
        found = compute_scores(answers(predicted_N, 5), torch.from_numpy(labels_N), seed=seed, is_ordinal=True)
        for name in held:
            low, high = found["intervals"][name]
            held[name] += low <= true[name] <= high
    assert all(count >= 0.87 * runs for count in held.values()), held
