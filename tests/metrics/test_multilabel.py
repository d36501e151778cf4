"""Scores of several labels equal scikit-learn's; counts add up to the whole; intervals have their coverage."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from classifier.errors import DataError, DivergedError
from classifier.metrics.multilabel import MultilabelCounts
from classifier.metrics.multilabel_scores import compute_multilabel_scores

NOTHING: Any = {"zero_division": 0}
SAME = {"rel_tol": 0, "abs_tol": 1e-6}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[float | None]]:
    """Probabilities, targets and thresholds: ties, labels without images, images without labels, labels never said."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, count = draw(st.integers(2, 7)), draw(st.integers(1, 50))
    rates = rng.choice([0.0, 0.1, 0.5, 1.0], classes)
    logits = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 10.0])), (count, classes))
    if draw(st.booleans()):
        logits = logits.round()  # ties
    thresholds = [None if t > 0.9 else t for t in rng.uniform(0.1, 1, classes).tolist()]
    return (
        torch.from_numpy(logits).float().sigmoid(),
        torch.from_numpy(rng.random((count, classes)) < rates),
        thresholds,
    )


def reference(y: np.ndarray, p: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """The overall scores by scikit-learn; map and roc_auc over the labels that have them."""
    wanted = {"subset_accuracy": sk.accuracy_score(y, said), "hamming_loss": sk.hamming_loss(y, said)}
    for average in ("micro", "macro", "samples"):
        scores: Any = sk.precision_recall_fscore_support(y, said, average=average, **NOTHING)
        wanted |= dict(zip((f"{average}_precision", f"{average}_recall", f"{average}_f1"), scores[:3], strict=True))
    wanted["loss"] = np.mean([sk.log_loss(y[:, k], p[:, k], labels=[False, True]) for k in range(y.shape[1])])
    areas = [sk.roc_auc_score(y[:, k], p[:, k]) for k in range(y.shape[1]) if 0 < y[:, k].sum() < len(y)]
    precisions = [sk.average_precision_score(y[:, k], p[:, k]) for k in range(y.shape[1]) if y[:, k].any()]
    means = {"roc_auc": areas, "map": precisions}
    return wanted | {name: float(np.mean(values)) if values else math.nan for name, values in means.items()}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=120, deadline=None, derandomize=True)
@given(cases())
def test_scores_equal_scikit_learns(case):
    probabilities_NK, targets_NK, thresholds = case
    found = compute_multilabel_scores(probabilities_NK, targets_NK, None, thresholds)
    p, y = probabilities_NK.numpy(), targets_NK.numpy()
    said = p >= np.array([math.inf if t is None else t for t in thresholds])
    for name, value in reference(y, p, said).items():
        assert (found[name] is None) if math.isnan(value) else math.isclose(found[name], value, **SAME), name
    each: Any = sk.precision_recall_fscore_support(y, said, average=None, **NOTHING)
    for k, row in enumerate(found["per_class"]):
        for name, values in zip(("precision", "recall", "f1"), each[:3], strict=True):
            assert math.isclose(row[name], values[k], **SAME)
        assert (row["support"], row["predicted"]) == (y[:, k].sum(), said[:, k].sum())
        if y[:, k].any():
            assert math.isclose(row["average_precision"], sk.average_precision_score(y[:, k], p[:, k]), **SAME)
        else:
            assert row["average_precision"] is None
        assert (row["roc_auc"] is None) == (y[:, k].all() or not y[:, k].any())
        assert row["threshold"] == thresholds[k]
    for name, ends in found["intervals"].items():
        assert ends is None or ends[0] - 1e-9 <= found[name] <= ends[1] + 1e-9 or name == "loss", name
    json.dumps(found, allow_nan=False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases(), st.integers(0, 50))
def test_counts_of_shards_add_up_to_scores(case, middle):
    probabilities_NK, targets_NK, _ = case
    parts = [(probabilities_NK[:middle], targets_NK[:middle]), (probabilities_NK[middle:], targets_NK[middle:])]
    counts = [MultilabelCounts(targets_NK.shape[1]) for _ in parts]
    for shard, part in zip(counts, parts, strict=True):
        shard.update(part[0].log(), part[1])
    found = MultilabelCounts.from_tensor(counts[0].tensor() + counts[1].tensor()).scores()
    wanted = compute_multilabel_scores(probabilities_NK, targets_NK)
    for name in ("micro_f1", "macro_f1", "samples_f1", "subset_accuracy", "hamming_loss", "loss", "count"):
        assert math.isclose(found[name], wanted[name], **SAME), name
    for row, exact in zip(found["per_class"], wanted["per_class"], strict=True):
        assert row["support"] == exact["support"]
        assert all(math.isclose(row[name], exact[name], **SAME) for name in ("precision", "recall", "f1"))


def test_average_precision_of_counts_is_near():
    rng = np.random.default_rng(0)
    targets_NK = rng.random((2000, 6)) < [0.01, 0.03, 0.1, 0.3, 0.5, 0.9]
    logits_NK = rng.normal(2.0 * targets_NK, 1.0)
    probabilities_NK = torch.from_numpy(logits_NK).float().sigmoid()
    counts = MultilabelCounts(6)
    counts.update(probabilities_NK.log(), torch.from_numpy(targets_NK))
    exact = compute_multilabel_scores(probabilities_NK, targets_NK)
    for row, wanted in zip(counts.scores()["per_class"], exact["per_class"], strict=True):
        assert row["average_precision"] == pytest.approx(wanted["average_precision"], abs=0.01)
    assert counts.scores()["map"] == pytest.approx(exact["map"], abs=0.003)


def test_what_cannot_be_scored():
    empty = torch.zeros(0, 3)
    with pytest.raises(DataError, match="no images to score"):
        compute_multilabel_scores(empty, empty.bool())
    counts = MultilabelCounts(3)
    with pytest.raises(DataError, match="no images to score"):
        counts.scores()
    counts.update(torch.full((2, 3), math.nan), torch.ones(2, 3))
    with pytest.raises(DivergedError, match="not finite"):
        counts.scores()


def test_perfect_predictions_are_not_certain():
    targets_NK = torch.arange(40)[:, None] % torch.tensor([2, 3, 5]) == 0
    scores = compute_multilabel_scores(targets_NK * 0.8 + 0.1, targets_NK, ["a", "b", "c"])
    assert scores["map"] == scores["macro_f1"] == scores["subset_accuracy"] == 1
    for name in ("subset_accuracy", "micro_f1", "macro_f1", "map", "roc_auc"):
        low, high = scores["intervals"][name]
        assert low < 0.99
        assert high == pytest.approx(1)
    assert scores["per_class"][0]["intervals"]["f1"][0] < 0.95


def test_calibrated_labels_are_within_the_error_by_chance():
    rng = np.random.default_rng(0)
    probabilities_NK = rng.beta(0.5, 1.5, (400, 8))
    bins_NK = np.minimum((probabilities_NK * 15).astype(int), 14)
    errors = []
    for _ in range(200):
        gaps_NK = probabilities_NK - (rng.random((400, 8)) < probabilities_NK)
        errors.append(np.abs(np.bincount(bins_NK.ravel(), gaps_NK.ravel())).sum() / gaps_NK.size)
    scores = compute_multilabel_scores(probabilities_NK, rng.random((400, 8)) < probabilities_NK)
    assert 0.9 <= np.mean(np.array(errors) <= scores["ece_by_chance"]) <= 0.99
    overconfident = compute_multilabel_scores(probabilities_NK**2, rng.random((400, 8)) < probabilities_NK)
    assert overconfident["ece"] > overconfident["ece_by_chance"]
