"""The setting data.columns: which columns of a table join the image, and of which kinds they are."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from classifier.config.fields import suggest
from classifier.data.columns.cells import write_value
from classifier.data.columns.column import KINDS, ColumnKind
from classifier.errors import ConfigError, DataError, list_few
from classifier.text import show

ALL = "all"
RESERVED = ("path", "file_name", "filename", "label", "labels", "split", "image", "id")
"""Columns that say what an image is, and where."""
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Numbers of rows, as pandas writes them."""


@dataclass(frozen=True)
class ColumnRequest:
    """names: the columns that are named. kinds: those whose kind is given. takes_all: all others, too."""

    names: tuple[str, ...] = ()
    kinds: Mapping[str, ColumnKind] | None = None
    takes_all: bool = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Parse the values of data.columns: NAME, NAME:KIND or all, several of them separated by commas.

        ConfigError if one is named twice.
        """
        names, kinds, takes_all = [], {}, False
        for word in (part.strip() for given in words for part in given.split(",")):
            name, colon, kind = word.rpartition(":")
            if not colon or kind not in KINDS:
                name, kind = word, None
            if not name:
                raise ConfigError("data.columns has an empty name: give the names of columns, or all")
            if name == ALL and kind is None:
                takes_all = True
                continue
            if name in names:
                raise ConfigError(f"data.columns names {show(name)} twice: name it once")
            names.append(name)
            if kind is not None:
                kinds[name] = kind
        return cls(tuple(names), kinds, takes_all)

    def __bool__(self) -> bool:
        return self.takes_all or bool(self.names)

    def choose(self, where: str, have: Sequence[str], reserved: Collection[str], group: str | None = None) -> list[str]:
        """Return which columns of a table join the image, in its order; none without a request.

        reserved: those of labels, paths, images or splits. group: that of data.group, which joins only if named.
        DataError, naming the table, if a column is named that it does not have, or that is reserved.
        """
        for name in self.names:
            if name not in have:
                known = list_few(list_free(have, reserved), 8)[:200] or "none"
                fix = suggest(name, have) or ": correct data.columns"
                raise DataError(f"{where}: there is no column {show(name[:100])} (only {show(known)}){fix}")
            if name in reserved or name.casefold() in RESERVED:
                raise DataError(
                    f"{where}: the column {show(name)} is no input, as it says which image or answer it is: leave it "
                    "out of data.columns"
                )
        others = list_free(have, [*reserved, group]) if self.takes_all else []
        return [name for name in dict.fromkeys(have) if name in self.names or name in others]


def list_free(have: Sequence[str], reserved: Collection[str | None]) -> list[str]:
    """Return the columns that could join the image: neither reserved, nor the numbers of the rows."""
    return [
        name
        for name in dict.fromkeys(have)
        if name not in reserved and name.casefold() not in RESERVED and not _INDEX.fullmatch(name)
    ]


def read_cells(where: str, names: Sequence[str], row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of these columns in a row of a table as text. DataError, naming the row, as write_value."""
    return {name: write_value(f"{where}: {name}", row[name]) for name in names}


def describe_unused(where: str, names: Sequence[str]) -> list[str]:
    """Return what to say about columns that could join the image; nothing if there are none."""
    if not names:
        return []
    what, verb = ("column", "is") if len(names) == 1 else ("columns", "are")
    return [f"{where}: its {what} {show(list_few(names, 5))} {verb} not used: --data.columns all."]
