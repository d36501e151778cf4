"""One frame of a source, converted only when it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source."""

    number: int
    """Of all frames of the source, from 0."""
    seconds: float
    """Since the start: of the film, or of the watching."""
    time: float
    """When it was read, in seconds since 1970."""
    read: Callable[[], np.ndarray | Path]
    """Returns its pixels, uint8 H x W x 3, or the image file that it is."""
    is_first: bool = False
    """After a gap of which nothing is known."""
