"""When a model's probabilities may be believed, and when it had better say that it is not sure.

Everything here is learned from validation images after training, and kept in the bundle.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classifier.errors import ConfigError, DataError

# How often a set of classes holds the right one, at least, where nobody asked for another share.
COVERAGE = 0.9
# Log-probabilities below this have no float32.
MIN_LOG_PROBABILITY = -100.0
# The temperature lies between these; one learned from fewer images than FEWEST would be chance.
MIN_TEMPERATURE, MAX_TEMPERATURE, MIN_IMAGES = 0.05, 20.0, 30


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a bundle holds of it."""

    images: int
    """Validation images that it was learned from."""
    temperature: float = 1.0
    """Divides the logits (Guo et al. 2017); 1 leaves them as they are."""
    coverage: float = COVERAGE
    """How often a set of classes holds the right one (split conformal prediction; Vovk et al. 2005)."""
    level: float = 0.0
    """The probability from which on a class is in the set (least ambiguous sets; Sadinle et al. 2019)."""
    wish: str | None = None
    """What thresholds are for: 'precision 0.95' or 'recall 0.9'."""
    thresholds: tuple[float | None, ...] | None = None
    """The probability from which on each class is taken; None where no probability fulfils the wish."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Calibration":
        values: dict[str, Any] = dict(plain)
        if values.get("thresholds") is not None:
            values["thresholds"] = tuple(values["thresholds"])
        return cls(**values)

    def prediction_sets(self, probabilities_NK: Tensor) -> Tensor:
        """in_NK, bool: the classes of each image's set. The likeliest is always in it."""
        in_NK = probabilities_NK >= self.level
        return in_NK.scatter(1, probabilities_NK.argmax(1, keepdim=True), True)

    def decide(self, probabilities_NK: Tensor) -> Tensor:
        """classes_N, int64: what each image is taken for, -1 where the model is not sure.

        With thresholds the class that is furthest above its own, as a multiple; without, the only one of its set.
        """
        if self.thresholds is None:
            in_NK = self.prediction_sets(probabilities_NK)
            return torch.where(in_NK.sum(1) == 1, probabilities_NK.argmax(1), -1)
        least_K = torch.tensor([math.inf if t is None else max(t, 1e-12) for t in self.thresholds])
        times_N, classes_N = (probabilities_NK / least_K).max(1)
        return torch.where(times_N >= 1, classes_N, -1)


def fit_temperature(log_probabilities_NK: Tensor, labels_N: Tensor) -> float:
    """The temperature that makes the labels likeliest, by a bounded search over its logarithm; 1 for few images.

    As if one image in N + 2 had another label (Platt 1999): where a model makes no mistake, no confidence would be too
    high otherwise.
    """
    from scipy.optimize import minimize_scalar

    if len(labels_N) < MIN_IMAGES:
        return 1.0
    log_probabilities_NK = log_probabilities_NK.double().clamp(min=MIN_LOG_PROBABILITY)
    classes, other = log_probabilities_NK.shape[1], 1 / (len(labels_N) + 2)
    targets_NK = torch.full_like(log_probabilities_NK, other / max(1, classes - 1))
    targets_NK.scatter_(1, labels_N[:, None], 1 - other)

    def loss(logarithm: float) -> float:
        return -float((targets_NK * apply_temperature(log_probabilities_NK, math.exp(logarithm))).sum(1).mean())

    return math.exp(
        minimize_scalar(loss, bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)), method="bounded").x
    )


def apply_temperature(log_probabilities_NK: Tensor, temperature: float) -> Tensor:
    """The log-probabilities of logits divided by the temperature, which keeps their order."""
    if temperature == 1:
        return log_probabilities_NK
    return (log_probabilities_NK.clamp(min=MIN_LOG_PROBABILITY) / temperature).log_softmax(1)


def fit_set_threshold(probabilities_NK: Tensor, labels_N: Tensor, coverage: float) -> float:
    """The probability from which on classes are in a set, so that sets hold the label in `coverage` of new images.

    On the mean over sets of validation images; 0, where there are too few images to say. ConfigError unless it is
    between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"--coverage {coverage:g}: give a share between 0 and 1, as 0.9")
    of_labels_N = probabilities_NK.gather(1, labels_N[:, None])[:, 0].double().sort(descending=True).values
    rank = math.ceil((len(labels_N) + 1) * coverage)
    return float(of_labels_N[rank - 1]) if 0 < rank <= len(labels_N) else 0.0


def fit_thresholds(
    probabilities_NK: Tensor, labels_N: Tensor, *, precision: float | None = None, recall: float | None = None
) -> tuple[float | None, ...]:
    """For each class the lowest probability from which on it has the wished precision, or the highest with the recall.

    On these images. None for a class that no probability gives it to. ConfigError unless one of them is given.
    """
    wish = precision if recall is None else recall
    if (precision is None) == (recall is None) or wish is None or not 0 < wish <= 1:
        raise ConfigError("give --precision or --recall, one of them, above 0 and at most 1")
    found: list[float | None] = []
    for k in range(probabilities_NK.shape[1]):
        scores_N, order_N = probabilities_NK[:, k].sort(descending=True, stable=True)
        hits_N = (labels_N[order_N] == k).double().cumsum(0)
        last_N = torch.cat([scores_N[1:] != scores_N[:-1], torch.ones(1, dtype=torch.bool)])  # of images that tie
        if precision is not None:
            good_N = last_N & (hits_N / torch.arange(1, len(hits_N) + 1) >= precision) & (hits_N > 0)
            places = good_N.nonzero()[-1:]
        else:
            good_N = last_N & (hits_N >= wish * hits_N[-1]) & (hits_N[-1] > 0)
            places = good_N.nonzero()[:1]
        found.append(float(scores_N[places[0, 0]]) if len(places) else None)
    return tuple(found)


def reliability_bins(probabilities_NK: Tensor, labels_N: Tensor, bins: int = 15) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, images) of each bin of equal width that holds images: the reliability diagram."""
    confidence_N, predicted_N = probabilities_NK.double().max(1)
    bins_N = (confidence_N * bins).long().clamp(max=bins - 1)
    found = []
    for place in bins_N.unique().tolist():
        mine_N = bins_N == place
        accuracy = float((predicted_N == labels_N)[mine_N].double().mean())
        found.append((float(confidence_N[mine_N].mean()), accuracy, int(mine_N.sum())))
    return found


def coverage_curve(probabilities_NK: Tensor, labels_N: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """coverage_N and accuracy_N: how right the model is, if it answers only the images that it is most confident of."""
    if len(labels_N) == 0:
        raise DataError("there are no images to score: give the split some (data.validation, data.test)")
    confidence_N, predicted_N = probabilities_NK.max(1)
    order_N = confidence_N.argsort(descending=True, stable=True)
    counts_N = np.arange(1, len(labels_N) + 1)
    hits_N = (predicted_N == labels_N)[order_N].double().cumsum(0).numpy()
    return counts_N / len(labels_N), hits_N / counts_N


def calibrate(
    probabilities_NK: Tensor,
    labels_N: Tensor,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> Calibration:
    """All of it, from the probabilities of validation images before any temperature. DataError without images.

    coverage: None for 90 %, or where the likeliest class alone is right more often than that, for a share that half of
    its mistakes are left out of: a set always holds the likeliest class, and cannot hold less.
    """
    if len(labels_N) == 0:
        raise DataError("there are no validation images to calibrate on: train with --data.validation above 0")
    temperature = fit_temperature(probabilities_NK.log(), labels_N)
    probabilities_NK = apply_temperature(probabilities_NK.log(), temperature).exp()
    if coverage is None:
        accuracy = float((probabilities_NK.argmax(1) == labels_N).double().mean())
        # Of n images, n / (n + 1) is the most that can be said.
        coverage = min(max(COVERAGE, (1 + accuracy) / 2), len(labels_N) / (len(labels_N) + 1))
    has_wish = precision is not None or recall is not None
    name, value = ("precision", precision) if precision is not None else ("recall", recall)
    return Calibration(
        images=len(labels_N),
        temperature=temperature,
        coverage=coverage,
        level=fit_set_threshold(probabilities_NK, labels_N, coverage),
        wish=f"{name} {value:g}" if has_wish else None,
        thresholds=fit_thresholds(probabilities_NK, labels_N, precision=precision, recall=recall) if has_wish else None,
    )
