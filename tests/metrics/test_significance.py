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
