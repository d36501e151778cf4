"""Classes above the leaves: their probabilities, answers and thresholds."""

import numpy as np
import pytest

from classifier.metrics.hierarchy import MIN_THRESHOLD, Hierarchy

ANIMALS = ("animal/bird/crow", "animal/bird/owl", "animal/dog", "plant/fern", "plant/moss", "stone")


def test_levels_of_leaves_of_different_depths() -> None:
    hierarchy = Hierarchy(ANIMALS)
    assert hierarchy.ancestors == ("animal", "plant", "animal/bird")
    assert [(level.depth, level.names) for level in hierarchy.levels] == [
        (1, ("animal", "plant", "stone")),
        (2, ("animal/bird", "animal/dog", "plant/fern", "plant/moss", "stone")),
    ]
    np.testing.assert_allclose(hierarchy.sum_up([[0.1, 0.2, 0.3, 0.2, 0.15, 0.05]]), [[0.6, 0.35, 0.3]])
    np.testing.assert_allclose(hierarchy.levels[0].sum_up([[0.1, 0.2, 0.3, 0.2, 0.15, 0.05]]), [[0.6, 0.35, 0.05]])
    best = hierarchy.find_best(np.array([0.1, 0.2, 0.3, 0.2, 0.15, 0.05]))
    assert best == (("animal", pytest.approx(0.6)), ("animal/bird", pytest.approx(0.3)))


@pytest.mark.parametrize(
    ("names", "ancestors", "levels"),
    [
        (("a", "b"), (), 0),
        (("x/a", "x/b"), (), 0),  # what holds all classes says nothing
        (("x/a", "y/b"), (), 0),  # nor what holds only one
        (("x/y/a", "x/y/b", "x/c"), ("x/y",), 1),
        (("x/a", "x/b", "y/c"), ("x",), 1),
    ],
)
def test_what_says_nothing_is_left_out(names: tuple[str, ...], ancestors: tuple[str, ...], levels: int) -> None:
    hierarchy = Hierarchy(names)
    assert hierarchy.ancestors == ancestors
    assert len(hierarchy.levels) == levels
    assert hierarchy.decide([[1 / len(names)] * len(names)], np.array([-1]), 0.9).tolist() == [-1]


def test_the_deepest_class_that_is_sure_enough_is_the_answer() -> None:
    hierarchy = Hierarchy(ANIMALS)
    probabilities_NK = np.array(
        [
            [0.5, 0.45, 0.05, 0, 0, 0],  # a bird
            [0.3, 0.25, 0.4, 0.05, 0, 0],  # an animal
            [0.25, 0.2, 0.05, 0.2, 0.2, 0.1],  # neither
            [0.0, 0.0, 0.3, 0.35, 0.35, 0],  # a plant, but not sure enough for 0.8
            [0.9, 0.1, 0, 0, 0, 0],  # decided
        ]
    )
    decisions_N = np.array([-1, -1, -1, -1, 0])

    def say(threshold: float) -> list[str | None]:
        nodes_N = hierarchy.decide(probabilities_NK, decisions_N, threshold)
        return [hierarchy.names[n] if n >= 0 else None for n in nodes_N.tolist()]

    assert say(0.8) == ["animal/bird", "animal", None, None, "animal/bird/crow"]
    assert say(0.0) == ["animal/bird", "animal/bird", None, "plant", "animal/bird/crow"]  # never below one half
    assert say(1.0) == [None, None, None, None, "animal/bird/crow"]


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure, and labels drawn from the true ones."""
    logits_NK = rng.normal(0, 1.5, (count, len(ANIMALS)))
    true_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    labels_N = (true_NK.cumsum(1) > rng.random((count, 1))).argmax(1)
    said_NK = np.exp(2 * logits_NK)
    return said_NK / said_NK.sum(1, keepdims=True), labels_N


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_answers_of_all_levels_hold_the_label_as_often_as_promised(coverage: float) -> None:
    hierarchy, rng = Hierarchy(ANIMALS), np.random.default_rng(0)
    holds_VK = np.concatenate([np.eye(len(ANIMALS), dtype=bool), hierarchy.in_AK])
    covered, above = [], 0
    for _ in range(100):
        threshold = hierarchy.fit_threshold(*draw(rng, 60), coverage)
        probabilities_NK, labels_N = draw(rng, 500)
        leaves_N = np.where(probabilities_NK.max(1) > threshold, probabilities_NK.argmax(1), -1)
        nodes_N = hierarchy.decide(probabilities_NK, leaves_N, threshold)
        covered.append(np.where(nodes_N < 0, True, holds_VK[nodes_N, labels_N]).mean())
        above += int((nodes_N >= len(ANIMALS)).sum())
    assert abs(np.mean(covered) - coverage) < 0.02
    assert above > 5000


def test_few_images_support_no_answer_above_the_leaves() -> None:
    hierarchy = Hierarchy(ANIMALS)
    probabilities_NK, labels_N = np.eye(len(ANIMALS)), np.arange(len(ANIMALS))
    assert hierarchy.fit_threshold(probabilities_NK, labels_N, 0.95) == 1
    assert hierarchy.fit_threshold(probabilities_NK, labels_N, 0.8) == MIN_THRESHOLD
