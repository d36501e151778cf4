"""Decisions from probabilities, by a fitted calibration: prediction sets and thresholds per class. In numpy alone.

Of images with several labels, each label is decided for itself, and a prediction set holds most of them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from classifier.metrics.hierarchy import Hierarchy

# Default coverage of prediction sets.
COVERAGE = 0.9
# Probability from which on one of several labels is said, where no threshold was fitted.
DEFAULT_THRESHOLD = 0.5

# Fields whose keys in bundle.json have other names.
_KEYS = {"set_threshold": "level", "target": "wish"}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Fitted calibration, as stored in a bundle."""

    images: int
    """Number of validation images that it was fitted to."""
    temperature: float = 1.0
    """Divides the logits (Guo et al. 2017); 1 leaves them unchanged."""
    coverage: float = COVERAGE
    """Fraction of prediction sets that contain the label (split conformal prediction; Vovk et al. 2005); of several
    labels, the mean share of an image's that its set contains (conformal risk control; Angelopoulos et al. 2022)."""
    set_threshold: float = 0.0
    """Minimum probability of a class in a prediction set (least ambiguous sets; Sadinle et al. 2019)."""
    target: str | None = None
    """What the thresholds were chosen for: 'precision 0.95' or 'recall 0.9'; of several labels also 'F1'."""
    thresholds: tuple[float | None, ...] | None = None
    """Minimum probability to decide for each class; None for a class that cannot reach the target."""
    ancestor_threshold: float | None = None
    """Of nested classes: the probability above which the answer is a class above the leaves, if none of these is."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, with the keys of bundle.json; that of nested classes only for these."""
        plain = {_KEYS.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        if self.ancestor_threshold is None:
            del plain["ancestor_threshold"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Calibration":
        """Create a calibration from `as_dict`'s data."""
        names = {key: name for name, key in _KEYS.items()}
        values: dict[str, Any] = {names.get(key, key): value for key, value in plain.items()}
        if values.get("thresholds") is not None:
            values["thresholds"] = tuple(values["thresholds"])
        return cls(**values)

    def prediction_sets(self, probabilities_NK: ArrayLike) -> np.ndarray:
        """Return in_NK, bool: the classes in each image's prediction set, which always contains the most likely one."""
        probabilities_NK = np.asarray(probabilities_NK)
        in_NK = probabilities_NK >= self.set_threshold
        np.put_along_axis(in_NK, probabilities_NK.argmax(1)[:, None], True, axis=1)
        return in_NK

    def decide(self, probabilities_NK: ArrayLike, hierarchy: Hierarchy | None = None) -> np.ndarray:
        """Return classes_N, int64: the decision for each image, or -1 where the model is not sure.

        With thresholds: the class with the highest ratio of probability to threshold, if that is at least 1. Without:
        the class of a prediction set of one. hierarchy: of nested classes; where no leaf is decided for, the decision
        is the deepest class above the leaves that is sure enough, an index of its `names`.
        """
        decisions_N = self._decide(np.asarray(probabilities_NK))
        if hierarchy is None or self.ancestor_threshold is None:
            return decisions_N
        return hierarchy.decide(probabilities_NK, decisions_N, self.ancestor_threshold)

    def _decide(self, probabilities_NK: np.ndarray) -> np.ndarray:
        if self.thresholds is None:
            return np.where(self.prediction_sets(probabilities_NK).sum(1) == 1, probabilities_NK.argmax(1), -1)
        thresholds_K = [np.inf if t is None else max(t, 1e-12) for t in self.thresholds]
        ratios_NK = probabilities_NK / np.array(thresholds_K, np.float32)
        return np.where(ratios_NK.max(1) >= 1, ratios_NK.argmax(1), -1)

    def decide_labels(self, probabilities_NK: ArrayLike) -> np.ndarray:
        """Return said_NK, bool: the labels that reach their threshold, of images with any number of them."""
        thresholds_K = self.thresholds if self.thresholds is not None else (DEFAULT_THRESHOLD,)
        return np.asarray(probabilities_NK) >= np.array([np.inf if limit is None else limit for limit in thresholds_K])

    def label_sets(self, probabilities_NK: ArrayLike) -> np.ndarray:
        """Return in_NK, bool: the labels in each image's prediction set, which always contains those decided for."""
        return (np.asarray(probabilities_NK) >= self.set_threshold) | self.decide_labels(probabilities_NK)
