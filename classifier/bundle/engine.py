"""What computes a model's answers: one interface, with and without torch."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np


class Answer(NamedTuple):
    """What a model says of a batch."""

    probabilities_NK: np.ndarray
    """float32, calibrated."""
    statistics: Mapping[str, np.ndarray]
    """stats_NF, float32, of each layer of the out-of-distribution detector (OODDetector.score); empty without one."""


class Engine(Protocol):
    """Computes a model's answers to images that are decoded already."""

    @property
    def description(self) -> str:
        """What computes: another text if answers may differ in their last digits."""
        ...

    @property
    def batch_size(self) -> int:
        """Images that are best answered together."""
        ...

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        """Answer a batch of uint8 images of the model's size and channels.

        columns_NF: float32, of a model that takes columns, as ColumnSchema encodes them. Without them all are missing.
        """
        ...
