"""Trees as tensors against scikit-learn's own, and tensors that are no trees."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier

from classifier.models.fusion.tree_ensemble import FOREST_SMOOTHING, NEVER, TreeEnsemble, from_boosting, from_forest


def draw(seed: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Rows of seven numbers, a tenth of them missing and one of them a whole number; a sum that labels follow."""
    rng = np.random.default_rng(seed)
    rows_NF = rng.normal(size=(rows, 7)).astype(np.float32)
    rows_NF[:, 6] = rows_NF[:, 6].round()
    rows_NF[rng.random(rows_NF.shape) < 0.1] = np.nan
    return rows_NF, (2 * np.nan_to_num(rows_NF[:, 0]) + np.nan_to_num(rows_NF[:, 6])).astype(int)


ROWS, SUMS = draw(0)
OTHERS, _ = draw(1)


def boost(labels_N: np.ndarray) -> Any:
    return HistGradientBoostingClassifier(max_iter=25).fit(ROWS, labels_N)


def forget_smoothing(probabilities_NK: np.ndarray, classes: int) -> np.ndarray:
    return (probabilities_NK - FOREST_SMOOTHING / classes) / (1 - FOREST_SMOOTHING)


@pytest.mark.parametrize("classes", [2, 5])
def test_boosting_gives_the_probabilities_of_scikit_learn(classes):
    reference = boost(SUMS % classes)
    trees = TreeEnsemble(from_boosting([reference], classes), classes=classes)
    probabilities_NK = trees(torch.from_numpy(OTHERS)).softmax(1)
    np.testing.assert_allclose(probabilities_NK, reference.predict_proba(OTHERS), atol=1e-6)


@pytest.mark.parametrize("seen", [(0, 2), (0, 1, 3)], ids=["two", "three"])
def test_boosting_of_classes_of_which_some_were_not_seen(seen):
    reference = boost(np.array(seen)[SUMS % len(seen)])
    trees = TreeEnsemble(from_boosting([reference], 4), classes=4)
    probabilities_NK = trees(torch.from_numpy(OTHERS)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities_NK[:, list(seen)], reference.predict_proba(OTHERS), atol=1e-4)
    assert np.delete(probabilities_NK, seen, 1).max() < 1e-3


def test_boosting_of_labels_one_of_which_never_varies():
    models = [boost(SUMS % 2), -NEVER, boost(SUMS % 3 == 0)]
    trees = TreeEnsemble(from_boosting(models, 3, of_labels=True), classes=3, is_multilabel=True)
    probabilities_NK = trees(torch.from_numpy(OTHERS)).sigmoid().numpy()
    for k in (0, 2):
        np.testing.assert_allclose(probabilities_NK[:, k], models[k].predict_proba(OTHERS)[:, 1], atol=1e-6)
    assert probabilities_NK[:, 1].max() < 1e-4


@pytest.mark.parametrize("kind", [ExtraTreesClassifier, RandomForestClassifier])
def test_forest_gives_the_probabilities_of_scikit_learn(kind):
    reference = kind(40, random_state=0).fit(ROWS, SUMS % 4)
    trees = TreeEnsemble(from_forest(reference, 4), classes=4)
    probabilities_NK = trees(torch.from_numpy(OTHERS)).softmax(1).double().numpy()
    np.testing.assert_allclose(forget_smoothing(probabilities_NK, 4), reference.predict_proba(OTHERS), atol=1e-6)


def test_forest_of_labels():
    labels_NK = np.stack([SUMS % 2, np.zeros_like(SUMS), SUMS % 3 == 0], 1)
    reference: Any = ExtraTreesClassifier(40, random_state=0).fit(ROWS, labels_NK)
    trees = TreeEnsemble(from_forest(reference, 3), classes=3, is_multilabel=True)
    probabilities_NK = forget_smoothing(trees(torch.from_numpy(OTHERS)).sigmoid().double().numpy(), 2)
    for k in (0, 2):
        np.testing.assert_allclose(probabilities_NK[:, k], reference.predict_proba(OTHERS)[k][:, 1], atol=1e-6)
    np.testing.assert_allclose(probabilities_NK[:, 1], 0, atol=1e-6)


def test_values_at_a_threshold_go_where_scikit_learn_sends_them():
    rows_NF = np.repeat(np.array([0.1, 0.2, 0.3, 0.4], np.float32), 20)[:, None]
    labels_N = np.repeat([0, 1, 0, 1], 20)
    reference: Any = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=1).fit(rows_NF, labels_N)
    trees = TreeEnsemble(from_boosting([reference], 2), classes=2)
    near_NF = np.concatenate([reference._predictors[0][0].nodes["num_threshold"], rows_NF[:, 0]])[:, None]
    near_NF = near_NF.astype(np.float32)
    near_NF = np.concatenate([near_NF, np.nextafter(near_NF, np.float32(0)), np.nextafter(near_NF, np.float32(1))])
    answers_NK = trees(torch.from_numpy(near_NF)).softmax(1)
    np.testing.assert_allclose(answers_NK, reference.predict_proba(near_NF), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("lefts", 0, 10**6), ("lefts", 3, 0), ("features", 0, -1), ("roots", 0, -1), ("roots", 0, 10**6)],
)
def test_tensors_that_are_no_trees_are_refused(name, index, value):
    tensors = from_boosting([boost(SUMS % 3)], 3)
    tensors[name][index] = value
    with pytest.raises(ValueError, match="not as scikit-learn grows them"):
        TreeEnsemble(tensors, classes=3)


def test_missing_tensors_are_named():
    tensors = from_boosting([boost(SUMS % 3)], 3)
    del tensors["values"]
    with pytest.raises(ValueError, match="the trees lack values"):
        TreeEnsemble(tensors, classes=3)
