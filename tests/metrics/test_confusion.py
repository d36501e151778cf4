"""Scores against scikit-learn's; shards add up to the whole."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from classifier.errors import DataError, DivergedError
from classifier.metrics.confusion import ConfusionMatrix


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """log_probabilities_NK and labels_N; few images of many classes, so some never occur."""
    classes = draw(st.integers(2, 12))
    count = draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    used = draw(st.integers(1, classes))
    logits_NK = draw(st.sampled_from([0.3, 3.0, 60.0])) * torch.randn(count, classes, generator=generator)
    if draw(st.booleans()):  # classes that are never predicted either
        logits_NK[:, used:] -= 500
    return logits_NK.log_softmax(1), torch.randint(used, (count,), generator=generator)


def matrix_of(log_probabilities_NK: Tensor, labels_N: Tensor) -> ConfusionMatrix:
    matrix = ConfusionMatrix(log_probabilities_NK.shape[1])
    matrix.update(log_probabilities_NK, labels_N)
    return matrix


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_scores_equal_scikit_learns(case: tuple[Tensor, Tensor]) -> None:
    from sklearn import metrics as reference

    zero: Any = 0  # the type stubs know only its text
    log_probabilities_NK, labels_N = case
    classes = log_probabilities_NK.shape[1]
    every = list(range(classes))
    truth, predicted = labels_N.numpy(), log_probabilities_NK.exp().argmax(1).numpy()
    scores = matrix_of(log_probabilities_NK, labels_N).scores()

    assert scores["count"] == len(truth)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    macro = reference.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=zero)
    assert [scores[f"macro_{n}"] for n in ("precision", "recall", "f1")] == pytest.approx(list(macro[:3]))
    each = np.array(reference.precision_recall_fscore_support(truth, predicted, labels=every, zero_division=zero))
    mine = [[row[n] for row in scores["per_class"]] for n in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(mine, each)
    assert scores["confusion"] == reference.confusion_matrix(truth, predicted, labels=every).tolist()
    if classes > 5:
        top5 = reference.top_k_accuracy_score(truth, log_probabilities_NK.double().numpy(), k=5, labels=every)
        assert scores["top5"] == pytest.approx(top5)
    else:
        assert scores["top5"] == 1
    loss = -log_probabilities_NK.double()[range(len(truth)), truth].mean()
    assert scores["loss"] == pytest.approx(float(loss))


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 5), st.integers(0, 5))
def test_shards_with_padding_add_up_to_the_whole(case: tuple[Tensor, Tensor], shards: int, padding: int) -> None:
    log_probabilities_NK, labels_N = case
    classes = log_probabilities_NK.shape[1]
    parts = []
    for part_NK, part_N in zip(
        torch.tensor_split(log_probabilities_NK, shards), torch.tensor_split(labels_N, shards), strict=True
    ):
        garbage_NK = torch.full((padding, classes), math.nan)
        parts.append(
            matrix_of(torch.cat([part_NK, garbage_NK]), torch.cat([part_N, torch.full((padding,), -1)])).tensor()
        )
    together = ConfusionMatrix.from_tensor(torch.stack(parts).sum(0)).scores()
    whole = matrix_of(log_probabilities_NK, labels_N).scores()
    assert together.pop("loss") == pytest.approx(whole.pop("loss"), rel=1e-12)
    assert together == whole


def test_matrices_add_and_convert_to_a_tensor_and_back() -> None:
    one, other = ConfusionMatrix(3), ConfusionMatrix(3)
    one.update(torch.eye(3).log_softmax(1), torch.tensor([0, 1, 2]))
    other.update(torch.eye(3).log_softmax(1), torch.tensor([1, 1, -1]))
    both = one + other
    assert both.count == 5
    assert both.confusion_KK.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]
    assert one.count == 3, "adding changes neither"


def test_ties_go_to_the_lower_class() -> None:
    matrix = matrix_of(torch.zeros(2, 8).log_softmax(1), torch.tensor([4, 5]))
    assert matrix.confusion_KK[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert int(matrix.top5_hits) == 1, "class 4 is the fifth of eight equals, class 5 the sixth"


def test_loss_of_a_confident_error_is_not_clipped() -> None:
    scores = matrix_of(torch.tensor([[400.0, 0.0]]).log_softmax(1), torch.tensor([1])).scores()
    assert scores["loss"] == pytest.approx(400.0)  # its probability is 0 in float32


def test_scores_are_strict_json_with_class_names() -> None:
    scores = matrix_of(torch.eye(3).log_softmax(1), torch.tensor([0, 1, 1])).scores(["ant", "bee", "cat"])
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert [row["name"] for row in scores["per_class"]] == ["ant", "bee", "cat"]
    assert scores["per_class"][1] == {"name": "bee", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)} | {
        "support": 2
    }


def test_no_images_and_non_finite_losses_raise() -> None:
    with pytest.raises(DataError, match="no images to score"):
        ConfusionMatrix(3).scores()
    with pytest.raises(DivergedError, match="not finite"):
        matrix_of(torch.full((1, 3), math.nan), torch.tensor([0])).scores()
