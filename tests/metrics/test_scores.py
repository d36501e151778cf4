"""Scores equal scikit-learn's, also with absent classes or ties; confidence intervals have their coverage."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from classifier.errors import DataError
from classifier.metrics.scores import compute_scores

NOTHING: Any = {"zero_division": 0}
SAME = {"rel_tol": 0, "abs_tol": 1e-6}


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels: few or many images, ties, absent classes, images of a single class."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, count = draw(st.integers(2, 8)), draw(st.integers(1, 60))
    present = draw(st.integers(1, classes))
    labels = rng.integers(0, present, count)
    logits = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 10.0])), (count, classes))
    if draw(st.booleans()):
        logits = logits.round()  # ties
    probabilities = torch.from_numpy(logits).float().softmax(1)
    return probabilities, torch.from_numpy(labels)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_scores_equal_scikit_learns(case):
    probabilities_NK, labels_N = case
    found = compute_scores(probabilities_NK, labels_N)
    p, y = probabilities_NK.double().numpy(), labels_N.numpy()
    classes, predicted = list(range(p.shape[1])), p.argmax(1)
    wanted = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": np.mean([(predicted[y == k] == k).mean() for k in set(y)]),
    }
    wanted["mcc"] = sk.matthews_corrcoef(y, predicted)
    wanted["kappa"] = sk.cohen_kappa_score(y, predicted, labels=classes)
    for average in ("macro", "weighted"):
        scores: Any = sk.precision_recall_fscore_support(y, predicted, average=average, **NOTHING)
        wanted |= dict(zip((f"{average}_precision", f"{average}_recall", f"{average}_f1"), scores[:3], strict=True))
    wanted["loss"] = sk.log_loss(y, p, labels=classes)
    onehot = np.eye(len(classes))[y]
    wanted["brier"] = ((p - onehot) ** 2).sum(1).mean()
    wanted["top5"] = np.mean([label in np.argsort(-row, kind="stable")[:5] for label, row in zip(y, p, strict=True)])
    for k, row in enumerate(found["per_class"]):
        each: Any = sk.precision_recall_fscore_support(y, predicted, labels=[k], average=None, **NOTHING)
        for name, (value,) in zip(("precision", "recall", "f1"), each[:3], strict=True):
            assert math.isclose(row[name], value, **SAME)
        assert row["support"] == (y == k).sum()
        if (y == k).sum() > 0:
            assert math.isclose(row["average_precision"], sk.average_precision_score(y == k, p[:, k]), **SAME)
        if 0 < (y == k).sum() < len(y):
            assert math.isclose(row["roc_auc"], sk.roc_auc_score(y == k, p[:, k]), **SAME)
        else:
            assert row["roc_auc"] is None
    for name, value in wanted.items():
        if math.isnan(value):
            assert found[name] is None
        else:
            assert math.isclose(found[name], value, **SAME), name
    areas = [row["roc_auc"] for row in found["per_class"] if row["roc_auc"] is not None]
    assert found["roc_auc"] == (pytest.approx(np.mean(areas)) if areas else None)
    assert found["confusion"] == sk.confusion_matrix(y, predicted, labels=classes).tolist()
    for name, ends in found["intervals"].items():
        assert ends is None or ends[0] <= ends[1], name


def test_padding_is_not_counted():
    probabilities_NK = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels_N = torch.arange(50) % 3
    padded_NK = torch.cat([probabilities_NK, torch.full((7, 3), math.nan)])
    padded_N = torch.cat([labels_N, torch.full((7,), -1)])
    assert compute_scores(padded_NK, padded_N) == compute_scores(probabilities_NK, labels_N)


def test_no_images_raise():
    with pytest.raises(DataError, match="no images to score"):
        compute_scores(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_intervals_contain_the_true_accuracy_as_often_as_they_claim():
    rng, right, held = np.random.default_rng(0), 0.8, 0
    for seed in range(60):
        hits = rng.random(150) < right
        probabilities_NK = torch.from_numpy(np.stack([np.where(hits, 0.9, 0.1), np.where(hits, 0.1, 0.9)], 1))
        low, high = compute_scores(probabilities_NK, torch.zeros(150, dtype=torch.int64), seed=seed)["intervals"][
            "accuracy"
        ]
        held += low <= right <= high
    assert 52 <= held <= 60  # 57 of 60 are 95 %


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities_NK = torch.tensor([[0.75, 0.25]]).expand(100, 2)
    labels_N = (torch.arange(100) >= 50).long()
    assert compute_scores(probabilities_NK, labels_N)["ece"] == pytest.approx(0.25)
    labels_N = (torch.arange(100) >= 75).long()
    assert compute_scores(probabilities_NK, labels_N)["ece"] == pytest.approx(0.0)


def test_intervals_are_reproducible():
    probabilities_NK = torch.rand(40, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    labels_N = torch.arange(40) % 4
    assert compute_scores(probabilities_NK, labels_N, seed=3) == compute_scores(probabilities_NK, labels_N, seed=3)
    assert compute_scores(probabilities_NK, labels_N, seed=3) != compute_scores(probabilities_NK, labels_N, seed=4)
