"""Paired significance tests: is one model better than another on the same test images?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from classifier.errors import DataError
from classifier.metrics.intervals import paired_difference_interval

ALPHA = 0.05


@dataclass(frozen=True)
class PredictedClasses:
    """A model's predicted classes of the test images, with their ids and labels. name: of the model."""

    name: str
    ids: Sequence[str]
    labels: Sequence[str]
    predicted: Sequence[str]


@dataclass(frozen=True)
class Difference:
    """The comparison of two models on the same images. first_only: images that only the first classifies correctly."""

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

    @property
    def gain(self) -> float:
        """The second model's accuracy minus the first one's."""
        return self.second_accuracy - self.first_accuracy

    @property
    def summary(self) -> str:
        """The result, as a sentence."""
        low, high = self.interval
        between = f"{100 * low:+.2f} to {100 * high:+.2f} points"
        if self.p >= ALPHA:
            return (
                f"{self.second} and {self.first} do not differ significantly on these images: "
                f"{100 * self.gain:+.2f} points ({between}; p = {self.p:.2g})."
            )
        better, worse = (self.second, self.first) if self.gain > 0 else (self.first, self.second)
        return (
            f"{better} is better than {worse}: by {100 * abs(self.gain):.2f} points of accuracy "
            f"({self.second} - {self.first}: {between}; p = {self.p:.2g})."
        )


def compare_predictions(first: PredictedClasses, second: PredictedClasses) -> Difference:
    """Compare two models by McNemar's exact test (1947). DataError if their images differ."""
    order = {name: n for n, name in enumerate(second.ids)}
    if set(order) != set(first.ids) or len(order) != len(first.ids):
        shared = len(set(order) & set(first.ids))
        raise DataError(
            f"{first.name} and {second.name} were not tested on the same images ({shared:,} of {len(first.ids):,} and "
            f"{len(order):,} are shared): train both with the same data.split_seed and data.test"
        )
    positions = [order[name] for name in first.ids]
    labels = np.asarray(first.labels)
    if (labels != np.asarray(second.labels)[positions]).any():
        raise DataError(f"{first.name} and {second.name} were tested with different labels: evaluate both again")
    first_right_N = np.asarray(first.predicted) == labels
    second_right_N = np.asarray(second.predicted)[positions] == labels
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
    )


def holm(values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests, in the same order (Holm 1979)."""
    order, adjusted, largest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
