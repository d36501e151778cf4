"""Paired significance tests: is one model better than another on the same test images?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.errors import DataError
from classifier.metrics.bootstrap import draw_weights, percentile_interval
from classifier.metrics.intervals import paired_difference_interval

ALPHA = 0.05


# Seed of what is drawn for a test of F1, how many times signs are, and how many at once.
SEED, SIGN_SAMPLES, MAX_SIGNS = 0, 9_999, 4_000_000


@dataclass(frozen=True)
class PredictedClasses:
    """A model's predicted classes of the test images, with their ids and labels. name: of the model.

    Of images with several labels, sets of names.
    """

    name: str
    ids: Sequence[str]
    labels: Sequence[str] | Sequence[frozenset[str]]
    predicted: Sequence[str] | Sequence[frozenset[str]]


@dataclass(frozen=True)
class F1Difference:
    """The comparison of two models by the F1 of the labels of each image; of one without labels it is 1 if none is
    said."""

    first: float
    second: float
    interval: tuple[float, float]
    """95 % confidence interval of the second mean minus the first, by a bootstrap of the images."""
    p: float
    """p-value of the paired permutation test, which draws the signs of the images' differences (Fisher 1935)."""

    @property
    def gain(self) -> float:
        """The second model's mean F1 minus the first one's."""
        return self.second - self.first


@dataclass(frozen=True)
class Difference:
    """The comparison of two models on the same images. first_only: images that only the first classifies correctly.

    An image with several labels is classified correctly if all of them are right.
    """

    first: str
    second: str
    first_accuracy: float
    second_accuracy: float
    first_only: int
    second_only: int
    interval: tuple[float, float]
    """95 % confidence interval of second_accuracy - first_accuracy, by Agresti and Min (2005)."""
    p: float
    """p-value of the exact McNemar test."""
    f1: F1Difference | None = None
    """Of images with several labels: how near to right they are."""

    @property
    def gain(self) -> float:
        """The second model's accuracy minus the first one's."""
        return self.second_accuracy - self.first_accuracy

    @property
    def summary(self) -> str:
        """The result, as a sentence; of several labels one on their F1, and one on images with all of them right."""
        if self.f1 is None:
            return self._describe(self.gain, self.interval, self.p, "accuracy")
        by_f1 = self._describe(self.f1.gain, self.f1.interval, self.f1.p, "F1 per image")
        return f"{by_f1} {self._describe(self.gain, self.interval, self.p, 'images with all labels right')}"

    def _describe(self, gain: float, interval: tuple[float, float], p: float, score: str) -> str:
        between = f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f} points"
        if p >= ALPHA:
            by = "" if self.f1 is None else f"in {score} "
            return (
                f"{self.second} and {self.first} do not differ significantly {by}on these images: "
                f"{100 * gain:+.2f} points ({between}; p = {p:.2g})."
            )
        better, worse = (self.second, self.first) if gain > 0 else (self.first, self.second)
        return (
            f"{better} is better than {worse}: by {100 * abs(gain):.2f} points of {score} "
            f"({self.second} - {self.first}: {between}; p = {p:.2g})."
        )


def compare_predictions(first: PredictedClasses, second: PredictedClasses) -> Difference:
    """Compare two models by McNemar's exact test (1947), and by the F1 of several labels. DataError if their images
    differ."""
    from scipy.stats import binomtest  # takes half a second

    order = {name: n for n, name in enumerate(second.ids)}
    if set(order) != set(first.ids) or len(order) != len(first.ids):
        shared = len(set(order) & set(first.ids))
        raise DataError(
            f"{first.name} and {second.name} were not tested on the same images ({shared:,} of {len(first.ids):,} and "
            f"{len(order):,} are shared): train both with the same data.split_seed and data.test"
        )
    positions = [order[name] for name in first.ids]
    labels, has_sets = np.asarray(first.labels), isinstance(first.labels[0], frozenset)
    if (labels != np.asarray(second.labels)[positions]).any():
        raise DataError(f"{first.name} and {second.name} were tested with different labels: evaluate both again")
    first_said, second_said = np.asarray(first.predicted), np.asarray(second.predicted)[positions]
    first_right_N, second_right_N = first_said == labels, second_said == labels
    gains_N = second_right_N.astype(np.int64) - first_right_N
    first_only, second_only = int((gains_N < 0).sum()), int((gains_N > 0).sum())
    differing = first_only + second_only
    return Difference(
        first=first.name,
        second=second.name,
        first_accuracy=float(first_right_N.mean()),
        second_accuracy=float(second_right_N.mean()),
        first_only=first_only,
        second_only=second_only,
        interval=paired_difference_interval(first_only, second_only, len(labels)),
        p=float(binomtest(second_only, differing).pvalue) if differing else 1.0,
        f1=_compare_f1(*(_measure_f1(labels, said) for said in (first_said, second_said))) if has_sets else None,
    )


def _measure_f1(labels: Iterable[frozenset[str]], predicted: Iterable[frozenset[str]]) -> np.ndarray:
    pairs = zip(labels, predicted, strict=True)
    return np.array([2 * len(own & said) / (len(own) + len(said)) if own or said else 1.0 for own, said in pairs])


def _compare_f1(first_N: np.ndarray, second_N: np.ndarray) -> F1Difference:
    gains_N = second_N - first_N
    interval, p = paired_difference_interval(0, 0, len(gains_N)), 1.0
    if gains_N.any():
        means = [weights_BN @ gains_N / len(gains_N) for _, weights_BN in draw_weights(len(gains_N), SEED)]
        low, high = percentile_interval(np.concatenate(means)).tolist()
        interval, p = (low, high), _test_signs(gains_N[gains_N != 0])
    return F1Difference(float(first_N.mean()), float(second_N.mean()), interval, p)


def _test_signs(gains_M: np.ndarray) -> float:
    """Return how often gains with drawn signs have as large a sum, at least; what was found counts as one draw."""
    rng, as_large, size = np.random.default_rng(SEED), 1, max(1, MAX_SIGNS // len(gains_M))
    least = abs(gains_M.sum()) - 1e-9
    for done in range(0, SIGN_SAMPLES, size):
        signs_BM = rng.integers(0, 2, (min(size, SIGN_SAMPLES - done), len(gains_M)), np.int8) * 2 - 1
        as_large += int((np.abs(signs_BM @ gains_M) >= least).sum())
    return as_large / (SIGN_SAMPLES + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests, in the same order (Holm 1979)."""
    order, adjusted, largest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
