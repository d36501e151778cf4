"""Whether a smaller model loses too much, by a paired comparison on images that no model has learned from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from classifier.bundle.engine import Engine
from classifier.data.dataset import Split
from classifier.metrics.intervals import paired_difference_interval

if TYPE_CHECKING:
    from classifier.compress.quantize import Scheme


@dataclass(frozen=True)
class Loss:
    """Accuracy lost by a model, with its 95 % interval (Agresti and Min 2005), as fractions; a gain is below 0."""

    mean: float
    low: float
    high: float

    def is_within(self, limit: float) -> bool:
        """Whether the whole interval is at or below the limit.

        McNemar's test would not do: it asks whether two models differ, and so few images pass any loss.
        """
        return self.high <= limit


def compare_answers(before_N: np.ndarray, after_N: np.ndarray) -> Loss:
    """Compare two models on the same images. before_N, after_N: bool, whether each is right."""
    lost, won = int((before_N & ~after_N).sum()), int((after_N & ~before_N).sum())
    low, high = paired_difference_interval(lost, won, len(before_N))
    return Loss((lost - won) / len(before_N), -high, -low)


class Assessment(NamedTuple):
    """What a model answers, and what that loses."""

    loss: Loss
    probabilities_NK: np.ndarray


class Judge(Protocol):
    """Asks models about the images of a split that they have not learned from."""

    split: Split

    def predict(self, step: str, engine: Engine, scheme: "Scheme | None", /) -> np.ndarray:
        """Return probabilities_NK by a step's model, which `engine` computes. scheme: of int8."""
        ...


@dataclass
class SplitJudge:
    """Asks models about the validation images."""

    split: Split

    def predict(self, _step: str, engine: Engine, _scheme: "Scheme | None") -> np.ndarray:
        return predict_split(engine, self.split)


def predict_split(engine: Engine, split: Split) -> np.ndarray:
    """Return the engine's probabilities_NK of a split."""
    parts = []
    for start in range(0, len(split), engine.batch_size):
        images_NCHW = np.asarray(split.images_NCHW[start : start + engine.batch_size])
        parts.append(engine.predict(images_NCHW).probabilities_NK)
    return np.concatenate(parts)
