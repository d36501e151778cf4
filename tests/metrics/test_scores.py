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
from classifier.metrics.calibration import judge_calibration
from classifier.metrics.intervals import f1_interval, wilson
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


def perfect(*supports: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions without an error, of classes with so many images."""
    labels_N = torch.cat([torch.full((support,), k) for k, support in enumerate(supports)])
    return 0.9 * torch.nn.functional.one_hot(labels_N, len(supports)).double() + 0.1 / len(supports), labels_N


def test_no_error_in_22_images_makes_no_score_certain():
    found = compute_scores(*perfect(11, 7, 4))
    assert found["intervals"]["accuracy"] == pytest.approx([0.851, 1.0], abs=0.001)
    for name in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1", "kappa", "mcc"):
        low, high = found["intervals"][name]
        assert 0.6 < low < 0.95, name
        assert high == pytest.approx(1.0), name
    assert found["intervals"]["loss"] is found["intervals"]["brier"] is found["intervals"]["ece"] is None
    for row, count in zip(found["per_class"], (11, 7, 4), strict=True):
        assert row["intervals"]["recall"] == row["intervals"]["precision"] == pytest.approx(wilson(count, count))
        assert row["intervals"]["f1"] == pytest.approx(f1_interval(count, count, count))


def test_small_class_without_errors_makes_the_means_over_classes_less_certain():
    probabilities_NK, labels_N = perfect(95, 5)
    probabilities_NK[0] = torch.tensor([0.2, 0.8])  # one error, in the large class
    found = compute_scores(probabilities_NK, labels_N)["intervals"]
    assert found["accuracy"][0] > 0.94
    assert found["balanced_accuracy"][0] < 0.8  # 5 of 5 is 57 to 100 %


def test_scores_of_no_images_have_no_interval():
    probabilities_NK, labels_N = perfect(6, 4, 0)
    found = compute_scores(probabilities_NK, labels_N)
    assert found["per_class"][2]["intervals"] == dict.fromkeys(found["per_class"][2]["intervals"])
    assert found["intervals"]["top5"] is None  # of 3 classes all are among the top 5
    assert compute_scores(torch.ones(9, 1), torch.zeros(9, dtype=torch.int64))["intervals"]["kappa"] is None


def test_intervals_of_means_contain_the_true_ones_as_often_as_they_claim():
    """10 classes of 20 images, of which 99 % are right; the bootstrap alone holds them in 85 % of cases."""
    rng, held = np.random.default_rng(0), {"macro_f1": 0, "balanced_accuracy": 0}
    labels = np.repeat(np.arange(10), 20)
    for seed in range(60):
        predicted = np.where(rng.random(200) < 0.99, labels, (labels + rng.integers(1, 10, 200)) % 10)
        found = compute_scores(torch.from_numpy(np.eye(10)[predicted]), torch.from_numpy(labels), seed=seed)
        for name in held:
            low, high = found["intervals"][name]
            held[name] += low <= 0.99 <= high
    assert all(count >= 54 for count in held.values()), held  # 57 of 60 are 95 %


@pytest.mark.parametrize(("images", "judgement"), [(27, None), (3000, "well")])
def test_calibrated_model_is_judged_on_enough_images_only(images, judgement):
    rng, found = np.random.default_rng(0), []
    for seed in range(20):
        logits = 2 * rng.normal(size=(images, 5))
        probabilities_NK = torch.from_numpy(logits).softmax(1)
        labels_N = torch.from_numpy(np.array([rng.choice(5, p=row) for row in probabilities_NK.numpy()]))
        found.append(judge_calibration(compute_scores(probabilities_NK, labels_N, seed=seed)))
    assert found.count(judgement) >= 18


@pytest.mark.parametrize(("images", "judgement"), [(28, None), (72, None), (200, "well")])
def test_certain_model_without_errors_is_judged_on_enough_images(images, judgement):
    """On 28 images it has no error by chance, and may yet be wrong on 12 % of others."""
    labels_N = torch.arange(images) % 2
    scores = compute_scores(torch.nn.functional.one_hot(labels_N, 2).double(), labels_N)
    assert scores["ece"] == scores["ece_by_chance"] == 0
    assert judge_calibration(scores) == judgement


def test_gross_overconfidence_is_told_from_few_images():
    probabilities_NK, labels_N = perfect(13, 14)
    scores = compute_scores(probabilities_NK, labels_N.roll(7))  # confident, and right by chance
    assert judge_calibration(scores) == "poorly"
    del scores["ece_by_chance"], scores["confidence"]
    assert judge_calibration(scores) is None  # of an older run


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


@pytest.mark.parametrize("confidence", [0.2, 0.9])
def test_images_that_all_end_alike_or_are_few_give_no_interval_of_their_loss(confidence: float):
    for count in (4, 20):
        probabilities_NK = torch.tensor([[1 - confidence, confidence]]).repeat(count, 1)
        scores = compute_scores(probabilities_NK, torch.ones(count, dtype=torch.int64))
        assert [scores["intervals"][name] for name in ("loss", "brier", "ece")] == [None] * 3
