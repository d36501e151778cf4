"""Confidence intervals of few images: known values, limits, and how often they hold what is true."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from classifier.metrics.intervals import (
    UNKNOWN,
    auroc_interval,
    difference_interval,
    f1_interval,
    mean_interval,
    paired_difference_interval,
    sum_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(22, 22, 0.851, 1.0), (0, 22, 0.0, 0.149), (1, 1, 0.207, 1.0), (5, 10, 0.237, 0.763), (0, 0, *UNKNOWN)],
)
def test_proportions_of_few_images_are_not_certain(hits, count, low, high):
    assert wilson(hits, count) == pytest.approx((low, high), abs=0.001)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_that_of_scipy(confidence):
    for count in (1, 2, 7, 331, 10_000):
        for hits in {0, 1, count // 3, count - 1, count}:
            expected = binomtest(hits, count).proportion_ci(confidence, method="wilson")
            assert wilson(hits, count, confidence) == pytest.approx(tuple(expected), abs=1e-14)


def test_f1_interval_ends_at_1_without_errors_and_at_0_without_hits():
    assert f1_interval(22, 22, 22) == pytest.approx((0.92, 1.0), abs=0.001)
    assert f1_interval(0, 5, 3)[0] == 0.0
    assert 0.4 < f1_interval(0, 5, 3)[1] < 0.6
    assert f1_interval(0, 0, 0) == UNKNOWN
    low, high = f1_interval(20, 30, 20)
    assert low < 40 / 50 < high


def test_f1_interval_holds_the_true_f1():
    """A class of 6 images among 24 others; both are right in 90 % of cases."""
    rng, true, held = np.random.default_rng(0), 2 * 5.4 / (6 + 5.4 + 2.4), 0
    for _ in range(400):
        hits, false = rng.binomial(6, 0.9), rng.binomial(24, 0.1)
        low, high = f1_interval(int(hits), 6, int(hits + false))
        held += low <= true <= high
    assert held >= 372  # 380 are 95 %


def test_difference_is_newcombes_example():
    """56 of 70 and 48 of 80 (Newcombe 1998, table II, example a, method 10)."""
    assert difference_interval(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=0.0001)


def test_a_mean_is_surer_than_its_parts_and_a_negative_weight_swaps_the_ends():
    ends = wilson(22, 22)
    low, high = sum_interval([1.0] * 4, [ends] * 4, [0.25] * 4)
    assert high == 1.0
    assert 1 - low == pytest.approx((1 - ends[0]) / 2)
    assert sum_interval([0.9, 0.5], [(0.9, 0.9), (0.4, 0.8)], (1, -1)) == pytest.approx((0.1, 0.5))


@pytest.mark.parametrize(("first_only", "second_only", "count"), [(0, 0, 20), (0, 5, 50), (7, 2, 100), (40, 10, 50)])
def test_paired_difference_holds_the_measured_one_and_agrees_with_the_exact_test(first_only, second_only, count):
    low, high = paired_difference_interval(first_only, second_only, count)
    assert -1 <= low <= (second_only - first_only) / count <= high <= 1
    assert low < high
    if first_only + second_only and binomtest(second_only, first_only + second_only).pvalue < 0.05:
        assert low > 0 or high < 0


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (3, 7), (22, 22), (999, 1000)])
def test_interval_of_a_mean_is_wilsons_for_a_proportion(hits, count):
    assert mean_interval(hits / count, count) == pytest.approx(wilson(hits, count))


def test_interval_of_a_mean_of_no_values_is_unknown():
    assert mean_interval(0.5, 0) == UNKNOWN


@pytest.mark.parametrize(
    ("area", "counts", "low", "high"),
    [
        (1.0, (3, 3), 0.50, 1.0),  # what 6 images that do not overlap can tell
        (0.0, (3, 3), 0.0, 0.50),
        (0.5, (1, 1), 0.05, 0.95),
        (0.5, (0, 5), 0.0, 1.0),
        (0.9995, (100, 400), 0.987, 1.0),
    ],
)
def test_interval_of_an_auroc(area, counts, low, high):
    assert auroc_interval(area, *counts) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize(
    ("higher_count", "lower_count", "shift"), [(10, 15, 1.0), (4, 4, 2.0), (40, 200, 2.0), (3, 30, 0)]
)
def test_interval_of_an_auroc_holds_the_true_one(higher_count, lower_count, shift):
    """Scores of two normal distributions that are `shift` deviations apart."""
    rng, true, held = np.random.default_rng(0), norm.cdf(shift / 2**0.5), 0
    for _ in range(400):
        higher, lower = rng.normal(shift, 1, higher_count), rng.normal(0, 1, lower_count)
        low, high = auroc_interval(float((higher[:, None] > lower).mean()), higher_count, lower_count)
        held += low <= true <= high
    assert held >= 0.93 * 400
