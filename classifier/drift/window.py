"""The images whose drift is measured, as the model answered them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from classifier.errors import DataError

MIN_IMAGES = 20
"""Fewer tell nothing."""


@dataclass(frozen=True, eq=False)
class Window:
    """M images. probabilities_MK: calibrated, float32; the rest where it is known: ood_scores_M, NaN of a missing
    image; statistics_MF of the layer that the reference has; features_MF, inputs of the head; columns_MF, as
    ColumnSchema encodes them.
    """

    name: str
    ids: Sequence[str]
    probabilities_MK: np.ndarray
    ood_scores_M: np.ndarray | None = None
    statistics_MF: np.ndarray | None = None
    features_MF: np.ndarray | None = None
    columns_MF: np.ndarray | None = None
    read_images: Callable[[Sequence[int]], list[bytes | None]] = lambda rows: [None] * len(rows)
    """Returns the files of some images, by their numbers; None where an image is not at hand."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self) < MIN_IMAGES:
            raise DataError(
                f"{self.name} has {len(self)} images with answers, and drift needs {MIN_IMAGES} at least: collect more"
            )

    def __len__(self) -> int:
        return len(self.ids)


def choose_rows(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` of the numbers below `count`, evenly spaced."""
    return np.arange(count) if count <= limit else np.linspace(0, count - 1, limit).astype(np.int64)
