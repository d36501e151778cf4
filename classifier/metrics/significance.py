"""Is one model better than another? Asked of the same test images, pair by pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from classifier.errors import DataError

BOOTSTRAP_SAMPLES, CONFIDENCE_LEVEL, ALPHA = 2000, 0.95, 0.05


@dataclass(frozen=True)
class PredictedClasses:
    """What a model said of the test images: ids, labels and predicted classes, by name."""

    name: str
    ids: Sequence[str]
    labels: Sequence[str]
    predicted: Sequence[str]


@dataclass(frozen=True)
class Difference:
    """Of two models on the same images. first_only: images that the first alone gets right."""

    first: str
    second: str
    first_accuracy: float
    second_accuracy: float
    first_only: int
    second_only: int
    interval: tuple[float, float]
    """95 % interval of second_accuracy - first_accuracy, by a paired bootstrap."""
    p: float
    """Of so large a difference, were both equally good (exact McNemar test)."""

    @property
    def gain(self) -> float:
        return self.second_accuracy - self.first_accuracy

    @property
    def summary(self) -> str:
        """A sentence."""
        low, high = self.interval
        between = f"{100 * low:+.2f} to {100 * high:+.2f} points"
        if self.p >= ALPHA:
            return (
                f"{self.second} and {self.first} cannot be told apart by these images: {100 * self.gain:+.2f} points "
                f"({between}; p = {self.p:.2g})."
            )
        better, worse = (self.second, self.first) if self.gain > 0 else (self.first, self.second)
        return (
            f"{better} is better than {worse}: by {100 * abs(self.gain):.2f} points of accuracy "
            f"({self.second} - {self.first}: {between}; p = {self.p:.2g})."
        )


def compare_predictions(first: PredictedClasses, second: PredictedClasses, *, seed: int = 0) -> Difference:
    """McNemar's exact test (1947) and a seeded bootstrap of the difference. DataError if the images differ."""
    order = {name: n for n, name in enumerate(second.ids)}
    if set(order) != set(first.ids) or len(order) != len(first.ids):
        shared = len(set(order) & set(first.ids))
        raise DataError(
            f"{first.name} and {second.name} were not tested on the same images ({shared:,} of {len(first.ids):,} and "
            f"{len(order):,} are shared): train both with the same data.split_seed and data.test"
        )
    places = [order[name] for name in first.ids]
    labels = np.asarray(first.labels)
    if (labels != np.asarray(second.labels)[places]).any():
        raise DataError(f"{first.name} and {second.name} were tested with different labels: evaluate both again")
    right_N = np.asarray(first.predicted) == labels
    also_N = np.asarray(second.predicted)[places] == labels
    gains_N = also_N.astype(np.int64) - right_N
    first_only, second_only = int((gains_N < 0).sum()), int((gains_N > 0).sum())
    differing = first_only + second_only
    # Images on which both agree move no draw: what a draw holds of the three kinds is multinomial.
    kinds = np.array([first_only, second_only, len(labels) - differing]) / len(labels)
    drawn = np.random.default_rng(seed).multinomial(len(labels), kinds, BOOTSTRAP_SAMPLES)
    low, high = np.quantile(
        (drawn[:, 1] - drawn[:, 0]) / len(labels), [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]
    )
    return Difference(
        first=first.name,
        second=second.name,
        first_accuracy=float(right_N.mean()),
        second_accuracy=float(also_N.mean()),
        first_only=first_only,
        second_only=second_only,
        interval=(float(low), float(high)),
        p=float(binomtest(second_only, differing).pvalue) if differing else 1.0,
    )


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests at once, in their order (Holm 1979)."""
    order, adjusted, largest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
