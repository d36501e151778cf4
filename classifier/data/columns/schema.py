"""The columns that join the image, and the vector of numbers that they become.

A schema is learned from the training images alone, and saved with the model, so that a row is encoded in a prediction
as it was in training.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from classifier.config.documents import check
from classifier.config.fields import Range, suggest
from classifier.data.columns.cells import MAX_CHARACTERS, MAX_NUMBER, fold_category, write_value
from classifier.data.columns.column import Column, ColumnKind
from classifier.data.columns.encode import DATE_WIDTH, encode_column
from classifier.errors import ConfigError, DataError, list_few
from classifier.text import show

IMAGE = 0
"""Position in the vector of whether there is an image."""
MAX_COLUMNS, MAX_WIDTH = 1000, 10_000
MAX_COLUMN_WIDTH, MAX_NAME_CHARACTERS = 4096, 1000


class _PlainColumn(TypedDict):
    """What as_dict writes of each column."""

    name: str
    kind: ColumnKind
    width: Annotated[int, Range(1, MAX_COLUMN_WIDTH)]
    mean: Annotated[float, Range(-MAX_NUMBER, MAX_NUMBER)]
    std: Annotated[float, Range(0, MAX_NUMBER, exclusive=True)]
    values: list[str]
    is_day_first: NotRequired[bool]


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
    def width(self) -> int:
        """Length of the vector."""
        return IMAGE + 1 + sum(self.widths)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each column is in the vector."""
        ends = itertools.accumulate(self.widths, initial=IMAGE + 1)
        return {name: slice(low, high) for name, (low, high) in zip(self.names, itertools.pairwise(ends), strict=True)}

    def encode(self, rows: Sequence[Mapping[str, Any] | None], has_images: Sequence[bool] | None = None) -> np.ndarray:
        """Return columns_NF, float32, of rows of values by the names of their columns; NaN where a value is missing.

        A row may lack columns, or be None. has_images: whether there is an image with each row; if None, with all.
        DataError, naming the row from 1, for an unknown column, or a value that is none of its kind.
        """
        for n, row in enumerate(rows, 1):
            if unknown := [str(name) for name in row or () if name not in self.slices]:
                raise DataError(
                    f"row {n}: the model has no column {show(unknown[0])}, only {list_few(self.names, 8)}"
                    f"{suggest(unknown[0], self.names) or ': leave it out'}"
                )
        texts = {
            name: [write_value(f"row {n}: {name}", (row or {}).get(name)) for n, row in enumerate(rows, 1)]
            for name in self.names
        }
        columns_NF = self.encode_texts(texts, [f"row {n}" for n in range(1, len(rows) + 1)])
        if has_images is not None:
            columns_NF[:, IMAGE] = has_images
        return columns_NF

    def encode_texts(self, texts: Mapping[str, Sequence[str]], ids: Sequence[str]) -> np.ndarray:
        """Return columns_NF, float32, of images with these ids: cells as write_value returns them, by column.

        All values of a column that is not there are missing. DataError names the image whose value is none of its
        column's kind.
        """
        columns_NF = np.full((len(ids), self.width), np.nan, np.float32)
        columns_NF[:, IMAGE] = 1
        for column, within in zip(self.columns, self.slices.values(), strict=True):
            if column.name in texts:
                columns_NF[:, within] = encode_column(column, texts[column.name], functools.partial(_locate, ids))
        return columns_NF

    def describe(self) -> str:
        """Return a sentence that names the columns and their kinds."""
        return f"columns: {list_few([column.describe() for column in self.columns], 20)}."

    def as_dict(self) -> list[dict[str, Any]]:
        """Return plain data, for JSON."""
        return [{**dataclasses.asdict(column), "values": list(column.values)} for column in self.columns]

    @classmethod
    def from_dict(cls, plain: Any) -> "ColumnSchema":
        """Create a schema from what `as_dict` returned, which anyone may have written. ConfigError if it is invalid."""
        checked = check("columns", list[_PlainColumn], plain)
        if not 0 < len(checked) <= MAX_COLUMNS:
            raise ConfigError(f"columns has {len(checked):,} columns: it must have 1 to {MAX_COLUMNS:,}")
        names = {field.name for field in dataclasses.fields(Column)}
        columns = [Column(**{name: one[name] for name in names & one.keys()}) for one in checked]
        for n, column in enumerate(columns):
            _check_column(f"columns[{n}]", column)
        schema = cls(tuple(dataclasses.replace(column, values=tuple(column.values)) for column in columns))
        if len(set(schema.names)) < len(columns):
            raise ConfigError("columns has two columns of one name")
        if schema.width > MAX_WIDTH:
            raise ConfigError(f"columns has a width of {schema.width:,}: it must be at most {MAX_WIDTH:,}")
        return schema


def _locate(ids: Sequence[str], n: int) -> str:
    return ids[n]


def _check_column(key: str, column: Column) -> None:
    """Raise a ConfigError if a column's parts do not agree."""
    if not 0 < len(column.name) <= MAX_NAME_CHARACTERS:
        raise ConfigError(f"{key}.name must have 1 to {MAX_NAME_CHARACTERS:,} characters")
    if column.kind == "text" and not column.values:
        return
    width = {"number": 1, "date": DATE_WIDTH, "category": len(column.values) + 1}.get(column.kind)
    if column.width != width or (column.values and column.kind != "category"):
        raise ConfigError(f"{key} has a width of {column.width} and {len(column.values):,} values, as no {column.kind}")
    if any(len(value) > MAX_CHARACTERS for value in column.values):
        raise ConfigError(f"{key}.values has a text of more than {MAX_CHARACTERS:,} characters")
    if len({fold_category(value) for value in column.values}) < len(column.values):
        raise ConfigError(f"{key}.values has a value twice")
