"""95 % confidence intervals in closed form, of proportions and of what follows from them.

They hold for few images, also where all of them are hits: there a bootstrap has no spread, and would call 22 of 22
certain.
"""

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

CONFIDENCE_LEVEL = 0.95
# An area is not known more exactly.
_ROUNDING = 1e-9
_Z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)

Interval = tuple[float, float]
# Of a proportion of no images.
UNKNOWN = (0.0, 1.0)


@functools.cache
def wilson(hits: int, count: int, confidence: float = CONFIDENCE_LEVEL) -> Interval:
    """Return the score interval of a proportion (Wilson 1927); UNKNOWN for a count of 0, and for no other.

    As scipy.stats.binomtest computes it, whose import would take longer than a short epoch.
    """
    if count == 0:
        return UNKNOWN
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = hits / count, 2 * (count + z**2)
    middle = (2 * count * share + z**2) / scale
    margin = z / scale * math.sqrt(4 * count * share * (1 - share) + z**2)
    return 0.0 if hits == 0 else middle - margin, 1.0 if hits == count else middle + margin


def mean_interval(mean: float, count: int) -> Interval:
    """Return the interval of the mean of `count` independent values between 0 and 1; UNKNOWN for a count of 0.

    Wilson's for a proportion, which varies more than any other such values.
    """
    if count == 0:
        return UNKNOWN
    scale = 1 + _Z**2 / count
    middle = (mean + _Z**2 / (2 * count)) / scale
    margin = _Z * math.sqrt(max(0.0, mean * (1 - mean)) / count + _Z**2 / (4 * count**2)) / scale
    return max(0.0, middle - margin), min(1.0, middle + margin)


def f1_interval(hits: int, support: int, predicted: int) -> Interval:
    """Return the interval of a class's F1, by Wilson's of its Jaccard index J, as F1 = 2J / (1 + J).

    J is a proportion: of the images that are of the class or predicted as it, those that are both. In a simulation of
    classes of 3 to 200 images the interval held the true F1 in 94 to 98 % of cases, and that of a bootstrap in 29 to
    95 %. support: images of the class; predicted: images predicted as it.
    """
    low, high = wilson(hits, support + predicted - hits)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def sum_interval(values: Sequence[float], intervals: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Return the interval of a weighted sum of independent values: the distances to their ends are added as squares.

    Newcombe (1998, method 10) for the difference of two proportions; Zou and Donner (2008) in general.
    """
    middle, below, above = 0.0, 0.0, 0.0
    for value, (low, high), weight in zip(values, intervals, weights, strict=True):
        ends = sorted((weight * (value - low), weight * (value - high)))
        middle, above, below = middle + weight * value, above + ends[0] ** 2, below + ends[1] ** 2
    return middle - math.sqrt(below), middle + math.sqrt(above)


@functools.cache
def auroc_interval(area: float, count: int, other_count: int) -> Interval:
    """Return the interval of an AUROC of two kinds of images, `count` of one; UNKNOWN without images of either.

    Newcombe (2006, method 5): the areas from which the measured one is 1.96 of their own standard deviations away, by
    Hanley and McNeil (1982). It holds for few images too, and where the two kinds do not overlap.
    """
    from scipy.optimize import brentq

    if not count or not other_count:
        return UNKNOWN
    mean_count = (count + other_count) / 2

    def distance(true: float) -> float:
        spread = 1 + (mean_count - 1) * ((1 - true) / (2 - true) + true / (1 + true))
        return abs(area - true) - _Z * math.sqrt(max(0.0, true * (1 - true)) * spread / (count * other_count))

    low = brentq(distance, 0.0, area - _ROUNDING) if area > _ROUNDING else 0.0
    high = brentq(distance, area + _ROUNDING, 1.0) if area < 1 - _ROUNDING else 1.0
    return float(low), float(high)  # pyright: ignore[reportArgumentType] - the root alone


def difference_interval(
    first: float, first_count: int, second: float, second_count: int, *, confidence: float = CONFIDENCE_LEVEL
) -> Interval:
    """Return the interval of first - second, two accuracies on other images (Newcombe 1998).

    On the same images it is wider than need be, as it does not know which of them both are right on.
    """
    accuracies, counts = (first, second), (first_count, second_count)
    intervals = [
        wilson(round(accuracy * count), count, confidence) for accuracy, count in zip(accuracies, counts, strict=True)
    ]
    return sum_interval(accuracies, intervals, (1, -1))


def paired_difference_interval(first_only: int, second_only: int, count: int) -> Interval:
    """Return the interval of the second accuracy minus the first, on the same images (Agresti and Min 2005).

    Half an image is added to each cell of the table of right and wrong: two models that agree on all of 50 images are
    not known to be equal. first_only, second_only: images that only this model has right.
    """
    total, gain = count + 2, second_only - first_only
    margin = _Z * math.sqrt(first_only + second_only + 1 - gain**2 / total) / total
    return max(-1.0, gain / total - margin), min(1.0, gain / total + margin)
