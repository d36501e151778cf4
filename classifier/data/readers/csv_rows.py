"""Rows of CSV tables, in the dialects that people and tools write; and the lines of text files.

Encoding, delimiter, quotes and blanks after delimiters follow from the file itself: they are those with which its first
line names the columns.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.labels.values import decode_text, detect_encoding
from classifier.data.readers.remote import RemotePath, open_random_access
from classifier.data.split_names import SPLIT_ALIASES
from classifier.errors import DataError, in_short
from classifier.text import unescape_surrogates

Row = tuple[str, dict[str, Any]]
"""Its location ("line 7"), and its values by column; None for a missing value."""

DELIMITERS = (",", ";", "\t", "|")
OTHER_NAMES = {"label": "labels"}
"""What a wanted column may be called, too."""
HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Dialect:
    """How a CSV table is written. columns: the position of each wanted one. names: the values of its first row."""

    columns: dict[str, int]
    names: list[str]
    delimiter: str
    quote: str
    skips_blanks: bool
    skipped_lines: int
    """Lines before the first row of values."""


def read_csv_rows(path: Path | RemotePath, wanted: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV table; of the wanted columns, only split may be missing. DataError if it is not CSV."""
    with open_text(path) as (file, head):
        dialect = find_dialect(head, wanted, is_tsv=path.suffix.lower() == ".tsv")
        if dialect is None:
            raise _missing_column(f"{path} line 1", head, wanted)
        if twice := next((column for column in wanted if dialect.names.count(column) > 1), None):
            raise DataError(f"{path} line 1: the column {twice} appears twice: keep one")
        width = len(dialect.names)
        needed = max(position for column, position in dialect.columns.items() if column != "split")
        lines = csv.reader(
            file,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            skipinitialspace=dialect.skips_blanks,
            strict=True,
        )
        try:
            for values in lines:
                if lines.line_num <= dialect.skipped_lines or not any(value.strip() for value in values):
                    continue
                where = f"line {lines.line_num}"
                if len(values) <= needed or any(value.strip() for value in values[width:]):
                    raise DataError(
                        f"{path} {where} has {len(values)} values, but the first line {width}: "
                        "make them equal, and quote values that contain the delimiter"
                    )
                row = {column: values[n] if n < len(values) else None for column, n in dialect.columns.items()}
                if "label" in dialect.columns:
                    row["label"] = unescape_surrogates(values[dialect.columns["label"]])
                yield where, row
        except csv.Error as error:
            raise DataError(f"{path} is not a CSV table ({error}): save it as CSV again") from None


@contextmanager
def open_text(path: Path | RemotePath) -> Iterator[tuple[io.TextIOWrapper, str]]:
    """Open a text file in UTF-8, or as its byte order mark says, and give its beginning. DataError if it is neither."""
    try:
        with open_random_access(path) as file:
            content = file.read(HEAD_BYTES)
            file.seek(0)
            head = decode_text(path, content, is_whole=len(content) < HEAD_BYTES)
            yield io.TextIOWrapper(file, encoding=detect_encoding(content), newline=""), head
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({in_short(error)}): make it readable") from None


def find_dialect(
    head: str, wanted: Sequence[str], *, is_tsv: bool = False, needs_names: bool = False
) -> Dialect | None:
    """Find how a table that begins like this is written; None if its first line does not name the wanted columns.

    Without a line of names, a first row of an image file, a label and, optionally, a split is understood, too, unless
    needs_names.
    """
    lines = head.splitlines(keepends=True)
    skipped = next((n for n, line in enumerate(lines) if line.strip()), 0)
    announced = lines[skipped].strip() if lines else ""
    delimiters = ("\t", *DELIMITERS) if is_tsv else DELIMITERS
    if announced.lower().startswith("sep=") and len(announced) == 5:  # Excel's
        delimiters, skipped = (announced[4],), skipped + 1
    first = "".join(lines[skipped:])
    if not first:
        return None
    for has_names in (True,) if needs_names else (True, False):
        for delimiter in delimiters:
            for quote in ('"', "'"):
                skips_blanks = f"{delimiter} " in lines[skipped]
                values, used = _first_row(first, delimiter, quote, skips_blanks)
                columns = _find_named(values, wanted) if has_names else _guess_columns(values, wanted)
                if columns is not None:
                    end = skipped + used * has_names
                    return Dialect(columns, [value.strip() for value in values], delimiter, quote, skips_blanks, end)
    return None


def _first_row(text: str, delimiter: str, quote: str, skips_blanks: bool) -> tuple[list[str], int]:
    """Return the values of the first row and its number of lines; no values if it is not CSV."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, skipinitialspace=skips_blanks, strict=True
    )
    try:
        return next(reader, []), reader.line_num
    except csv.Error:
        return [], 0


def _find_named(values: list[str], wanted: Sequence[str]) -> dict[str, int] | None:
    """Return the position of each wanted column, by its exact name or one in other letters; None if one is missing."""
    names, folded = [value.strip() for value in values], [value.strip().casefold() for value in values]
    columns = {}
    for column in wanted:
        for name in (column, OTHER_NAMES.get(column, column)):
            if name in names:
                columns[column] = names.index(name)
            elif name.casefold() in folded:
                columns[column] = folded.index(name.casefold())
            else:
                continue
            break
        if column not in columns and column != "split":
            return None
    return columns


def _guess_columns(values: list[str], wanted: Sequence[str]) -> dict[str, int] | None:
    """Return the positions of path, label and split in a first row that is no line of names; None if it is unclear."""
    if [*wanted] == ["path"]:
        images = [n for n, value in enumerate(values) if value.strip().lower().endswith(tuple(SUFFIXES))]
        return {"path": images[0]} if len(images) == 1 else None
    if not {"path", "label"} <= set(wanted) <= {"path", "label", "split"} or not 2 <= len(values) <= 3:
        return None
    paths = [n for n, value in enumerate(values) if value.strip().lower().endswith(tuple(SUFFIXES))]
    others = [n for n in range(len(values)) if n not in paths]
    splits = [n for n in others if values[n].strip().lower() in SPLIT_ALIASES] if len(others) == 2 else []
    labels = [n for n in others if n not in splits]
    if len(paths) != 1 or len(labels) != 1 or len(splits) > 1:
        return None
    return {"path": paths[0], "label": labels[0]} | ({"split": splits[0]} if splits else {})


def _missing_column(where: str, head: str, wanted: Sequence[str]) -> DataError:
    rows = [_first_row(head, delimiter, '"', True)[0] for delimiter in DELIMITERS]
    names = [name.strip() for name in max(rows, key=len)]
    column = next((c for c in wanted if c != "split" and _find_named(names, [c]) is None), wanted[0])
    have = ", ".join(names)[:200] or "none"
    return DataError(f"{where}: there is no column {column} (only {have}): rename or add it")
