"""Permutation importance against scikit-learn's, and what is measured where there is much to measure."""

import numpy as np
import pytest
import torch
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression

from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.inference.permutation_importance import choose_images, measure_importance

SCHEMA = ColumnSchema(tuple(Column(name=name, kind="number", width=1) for name in ("strong", "weak", "none")))
EFFECTS = torch.tensor([2.0, 3.0, 0.7, 0.0])  # of the image's feature, then of each column
COUNT = 400


def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features_NB, columns_NF and labels_N."""
    generator = torch.Generator().manual_seed(0)
    inputs_NI = torch.randn(COUNT, 4, generator=generator)
    noise_N = torch.randn(COUNT, generator=generator)
    columns_NF = torch.cat([torch.ones(COUNT, 1), inputs_NI[:, 1:]], 1)
    return inputs_NI[:, :1], columns_NF, (inputs_NI @ EFFECTS + noise_N > 0).long()


def answer(features_NB: torch.Tensor, columns_NF: torch.Tensor) -> torch.Tensor:
    scores_N = features_NB[:, 0] * EFFECTS[0] + columns_NF[:, 1:] @ EFFECTS[1:]
    return torch.stack([-scores_N / 2, scores_N / 2], 1)


def test_drops_of_accuracy_are_those_of_scikit_learn():
    features_NB, columns_NF, labels_N = draw()
    measured = measure_importance(answer, features_NB, columns_NF, labels_N, SCHEMA, "multiclass", has_trees=False)
    model = LogisticRegression().fit(np.zeros((2, 4)), [0, 1])
    model.coef_, model.intercept_ = EFFECTS[None].numpy(), np.zeros(1)
    inputs_NI = torch.cat([features_NB, columns_NF[:, 1:]], 1).numpy()
    expected = permutation_importance(model, inputs_NI, labels_N.numpy(), n_repeats=200, random_state=0)
    rows = {row["name"]: row for row in measured["inputs"]}
    assert list(rows) == ["image", "all columns", *SCHEMA.names]
    assert measured["repeats"] == 10
    for name, mean, std in zip(("image", *SCHEMA.names), *list(expected.values())[:2], strict=True):
        assert rows[name]["drop"] == pytest.approx(mean, abs=4 * std / np.sqrt(10) + 1e-9)
    assert (rows["none"]["drop"], rows["none"]["rise"]) == (0, 0)
    assert rows["all columns"]["drop"] > rows["strong"]["drop"]
    assert rows["strong"]["rise"] > rows["weak"]["rise"] > 0


def test_missing_images_and_values_are_shuffled_with_the_others():
    """The answer knows nothing but what is missing."""
    features_NB, columns_NF, _ = draw()
    columns_NF[::2, 0], columns_NF[1::4, 2] = 0, torch.nan
    labels_N = torch.arange(COUNT) % 2

    def ask(features_NB: torch.Tensor, columns_NF: torch.Tensor) -> torch.Tensor:
        return 9 * torch.stack([0.5 - columns_NF[:, 0], columns_NF[:, 0] - 0.5], 1)

    measured = measure_importance(ask, features_NB, columns_NF, labels_N, SCHEMA, "multiclass", has_trees=False)
    rows = {row["name"]: row["drop"] for row in measured["inputs"]}
    assert measured["value"] == 1
    assert rows["image"] == pytest.approx(0.5, abs=0.1)
    assert {rows[name] for name in ("all columns", *SCHEMA.names)} == {0}


@pytest.mark.parametrize(("task", "score"), [("multilabel", "map"), ("ordinal", "quadratic_kappa")])
def test_each_task_has_its_score(task, score):
    features_NB, columns_NF, labels_N = draw()
    targets = torch.nn.functional.one_hot(labels_N).float() if task == "multilabel" else labels_N
    measured = measure_importance(answer, features_NB, columns_NF, targets, SCHEMA, task, has_trees=False)
    assert measured["score"] == score
    assert measured["value"] > 0.8
    assert measured["inputs"][1]["drop"] > 0.2


def test_a_score_that_is_undefined_is_none():
    features_NB, columns_NF, labels_N = draw()
    everywhere = measure_importance(
        answer, features_NB[:9], columns_NF[:9], torch.zeros_like(labels_N[:9]), SCHEMA, "ordinal", has_trees=False
    )
    none = torch.zeros(9, 2)
    nowhere = measure_importance(answer, features_NB[:9], columns_NF[:9], none, SCHEMA, "multilabel", has_trees=False)
    assert nowhere["value"] is nowhere["inputs"][0]["drop"] is None
    assert nowhere["inputs"][0]["rise"] is not None
    assert everywhere["images"] == 9


@pytest.mark.parametrize(("columns", "has_trees", "most"), [(3, False, 2000), (3, True, 1000), (500, True, 200)])
def test_of_many_images_some_are_chosen(columns, has_trees, most):
    index_M = choose_images(1_000_000, columns, has_trees=has_trees)
    assert len(index_M) == most
    assert torch.equal(choose_images(50, columns, has_trees=has_trees), torch.arange(50))
