"""Comparing two models on the same images: test, interval and summary."""

import numpy as np
import pytest
from scipy.stats import binomtest

from classifier.errors import DataError
from classifier.metrics.significance import PredictedClasses, compare_predictions, holm


def predicted(name: str, right: np.ndarray) -> PredictedClasses:
    """The predictions of a model that is correct where `right` is true."""
    ids = [f"{n}.png" for n in range(len(right))]
    return PredictedClasses(name, ids, ["cat"] * len(right), ["cat" if hit else "dog" for hit in right])


def test_p_value_is_mcnemars():
    first = np.array([True] * 80 + [False] * 20)
    second = np.array([True] * 78 + [False] * 2 + [True] * 14 + [False] * 6)
    found = compare_predictions(predicted("a", first), predicted("b", second))
    assert (found.first_only, found.second_only) == (2, 14)
    assert found.p == pytest.approx(binomtest(14, 16).pvalue)
    assert found.gain == pytest.approx(0.12)
    low, high = found.interval
    assert 0.04 < low < 0.12 < high < 0.21
    assert found.summary.startswith("b is better than a: by 12.00 points")


def test_equal_models_do_not_differ_significantly():
    right = np.arange(50) % 3 > 0
    found = compare_predictions(predicted("a", right), predicted("b", right))
    assert found.p == 1.0
    low, high = found.interval
    assert low < 0 < high  # that they agree on 50 images does not make them equal
    assert -low == pytest.approx(high)
    assert 0.03 < high < 0.05
    assert "do not differ significantly on these images: +0.00 points (-3.77 to +3.77 points" in found.summary


def test_the_order_of_the_images_does_not_matter():
    right, other = np.arange(50) % 3 > 0, np.arange(50) % 4 > 0
    second = predicted("b", other)
    turned = PredictedClasses("b", second.ids[::-1], second.labels[::-1], second.predicted[::-1])
    assert compare_predictions(predicted("a", right), turned) == compare_predictions(predicted("a", right), second)


def test_different_images_raise():
    with pytest.raises(DataError, match=r"not tested on the same images \(40 of 40 and 50"):
        compare_predictions(predicted("a", np.ones(40, bool)), predicted("b", np.ones(50, bool)))


def test_different_labels_raise():
    first = predicted("a", np.ones(4, bool))
    second = PredictedClasses("b", first.ids, ["dog"] * 4, ["dog"] * 4)
    with pytest.raises(DataError, match="with different labels"):
        compare_predictions(first, second)


def test_holm_adjusts_multiple_p_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]


def labelled(name: str, said: list[str], labels: str) -> PredictedClasses:
    """Sets of letters: labels of `labels`, words, and what is said of each image."""
    ids = [str(n) for n in range(len(said))]
    return PredictedClasses(name, ids, [*map(frozenset, labels.split(" "))], [*map(frozenset, said)])


def test_several_labels_are_compared_by_exact_matches_and_by_f1():
    labels = " ".join(["abc", "ab", "", "c"] * 20)
    first, second = ["a", "a", "b", "c"] * 20, ["ab", "ab", "", "c"] * 20
    found = compare_predictions(labelled("a", first, labels), labelled("b", second, labels))
    assert (found.first_accuracy, found.second_accuracy) == (0.25, 0.75)
    assert found.f1
    assert found.f1.first == pytest.approx((0.5 + 2 / 3 + 0 + 1) / 4)
    assert found.f1.second == pytest.approx((0.8 + 1 + 1 + 1) / 4)
    low, high = found.f1.interval
    assert 0.3 < low < found.f1.gain < high < 0.5
    assert found.f1.p == 1e-4
    assert found.summary.startswith("b is better than a: by 40.83 points of F1 per image")
    assert "by 50.00 points of images with all labels right" in found.summary
    same = compare_predictions(labelled("a", second, labels), labelled("b", second, labels))
    assert same.f1
    assert (same.f1.p, same.f1.gain) == (1.0, 0.0)
    assert same.f1.interval[0] < 0 < same.f1.interval[1]


def test_f1_of_models_alike_is_seldom_significant():
    rng, significant = np.random.default_rng(0), 0
    for _ in range(40):
        first, second = (["ab" if right else "a" for right in rng.random(60) < 0.7] for _ in range(2))
        labels = " ".join(["ab"] * 60)
        found = compare_predictions(labelled("a", first, labels), labelled("b", second, labels))
        assert found.f1
        significant += found.f1.p < 0.05
    assert significant <= 6
