"""Scores of nested classes by level, compared with those of a model of that level alone."""

import numpy as np
import pytest
import torch

from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.level_scores import compute_level_scores
from classifier.metrics.scores import compute_scores

LEAVES = ("a/x/1", "a/x/2", "a/y", "b/1", "b/2", "c")


@pytest.mark.parametrize("count", [7, 60])
def test_a_level_has_the_scores_of_its_summed_probabilities(count: int) -> None:
    rng, hierarchy = np.random.default_rng(count), Hierarchy(LEAVES)
    labels_N = rng.integers(0, len(LEAVES), count)
    probabilities_NK = rng.dirichlet(np.ones(len(LEAVES)), count) + 0.5 * np.eye(len(LEAVES))[labels_N]
    probabilities_NK /= probabilities_NK.sum(1, keepdims=True)
    scores = compute_level_scores(probabilities_NK, labels_N, hierarchy)
    assert [(row["depth"], row["classes"]) for row in scores] == [(1, 3), (2, 5)]
    for row, level in zip(scores, hierarchy.levels, strict=True):
        summed_NL = torch.from_numpy(level.sum_up(probabilities_NK))
        expected = compute_scores(summed_NL, torch.from_numpy(level.of_leaf_K[labels_N]), level.names)
        for name in ("accuracy", "macro_f1"):
            assert row[name] == pytest.approx(expected[name])
            assert row["intervals"][name] == pytest.approx(expected["intervals"][name])
