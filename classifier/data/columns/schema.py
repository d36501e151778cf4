"""The columns that join the image, and the vector of numbers that they become.

A schema is learned from the training images alone, and saved with the model, so that a row is encoded in a prediction
as it was in training.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["number", "category", "date", "text"]
IMAGE = 0
"""Position in the vector of whether there is an image."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column, and how its values become numbers: plain data."""

    name: str
    kind: ColumnKind
    width: int
    """How many numbers a value becomes."""
    mean: float = 0.0
    """Of a number, or of a date in days since 1970, over the training images."""
    std: float = 1.0
    values: tuple[str, ...] = ()
    """Of a category: those that have a place of their own; all others share the last one."""


@dataclass(frozen=True)
class ColumnSchema:
    """The columns of a data set, in the order in which they are encoded."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of each column; the vector has one more, for the image, before them."""
        return tuple(column.width for column in self.columns)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each column is in the vector."""
        ends = itertools.accumulate(self.widths, initial=IMAGE + 1)
        return {name: slice(low, high) for name, (low, high) in zip(self.names, itertools.pairwise(ends), strict=True)}
