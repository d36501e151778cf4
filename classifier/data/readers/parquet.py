"""Parquet tables that contain the images themselves, as Hugging Face's `datasets` writes them.

A column of structs {bytes, path}, or of bytes, and a column of labels, whose class names are in the table's metadata.
The split comes from the table's name (train-00000-of-00004.parquet), or from a column `split`, row by row.
"""

import bisect
import collections
import functools
import itertools
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from classifier.data.columns.request import ColumnRequest, describe_unused, list_free, read_cells
from classifier.data.labels import class_columns
from classifier.data.labels.class_names import describe_repeated
from classifier.data.labels.values import parse_group, parse_labels
from classifier.data.readers.csv_rows import Row
from classifier.data.readers.file_bytes import PackedFile, derive_identity
from classifier.data.readers.remote import RemotePath, open_random_access, path_identity, split_common_folder
from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.split_names import infer_splits, parse_split
from classifier.errors import DataError, in_short, list_few
from classifier.storage.bounded_parquet import BoundedParquet, is_list_of_scalars

MAX_LABELS = 1 << 16
"""Of one image."""
LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
_TEXT_COLUMNS = ("path", "split", *LABEL_COLUMNS)
"""Never images, even if their text is written as bytes."""
MIN_CACHED_ROW_GROUPS, MAX_CACHED_ROW_GROUPS, MAX_CACHED_BYTES = 2, 8, 1 << 30
"""Row groups whose images stay in memory, over all tables of a data set: those that concurrent threads are reading."""


class RowGroupCache:
    """The most recently used row groups, at most `count` of them."""

    def __init__(self, count: int = MAX_CACHED_ROW_GROUPS) -> None:
        self._count = count
        self._groups: collections.OrderedDict[tuple[int, int], pa.ChunkedArray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """Return the row group of this key, from `read` if it is not cached."""
        with self._lock:
            if key not in self._groups:
                self._groups[key] = read()
                while len(self._groups) > MIN_CACHED_ROW_GROUPS and (
                    len(self._groups) > self._count
                    or sum(group.nbytes for group in self._groups.values()) > MAX_CACHED_BYTES
                ):
                    self._groups.popitem(last=False)
            return self._groups[key]


class ImageTable:
    """The images in one file. They may be read from several threads at once."""

    def __init__(self, path: Path | RemotePath, cache: RowGroupCache) -> None:
        """cache: shared by the tables of a data set. DataError if the file is not Parquet."""
        self.path, self._cache = path, cache
        self.file = open_table(path)
        self.schema = self.file.schema
        self.column = find_image_column(self.schema)
        self._corrupted: dict[int, str] = {}
        """Row group -> what is wrong with it: found once, not for each of its images."""

    def read_image(self, row: int) -> bytes:
        """Return the bytes of one image. OSError if there are none, or they are corrupted."""
        group = bisect.bisect_right(self.file.starts, row) - 1
        images = self._cache.get((id(self), group), functools.partial(self._read_row_group, group))
        cell = images[row - self.file.starts[group]]
        if pa.types.is_struct(cell.type):
            cell = cell["bytes"] if cell.is_valid else cell
        if not cell.is_valid:
            raise OSError("its table has no bytes for it")
        return cell.as_buffer().to_pybytes()

    def _read_row_group(self, group: int) -> pa.ChunkedArray:
        assert self.column is not None
        if group in self._corrupted:
            raise OSError(self._corrupted[group])
        is_struct = pa.types.is_struct(self.schema.field(self.column).type)
        columns = [f"{self.column}.bytes" if is_struct else self.column]
        try:
            return pa.chunked_array([batch.column(0) for batch in self.file.read_batches(group, columns)])
        except OSError as error:
            self._corrupted[group] = f"corrupted in its table: {in_short(error)}"
            raise OSError(self._corrupted[group]) from None


def open_table(path: Path | RemotePath) -> BoundedParquet:
    """Open a Parquet file. DataError if it is none, or corrupted."""
    try:
        return BoundedParquet(open_random_access(path))
    except OSError as error:
        raise DataError(f"{path} is not a Parquet table, or corrupted ({in_short(error)}): write it again") from None


def read_columns(
    path: Path | RemotePath, table: BoundedParquet, columns: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the values of each row. columns: key of a value -> name of its column. Labels may be lists.

    DataError if the table is corrupted.
    """
    names = list(dict.fromkeys(columns.values()))
    for name in names:
        if table.schema.names.count(name) > 1:
            raise DataError(f"{path}: the column {name} appears twice: keep one")
        kind = table.schema.field(name).type
        if pa.types.is_nested(kind) and not (name in LABEL_COLUMNS and is_list_of_scalars(kind)):
            raise DataError(
                f"{path}: the column {name} has structures instead of values ({str(kind)[:60]}): write text or a "
                "number in each row"
            )
    try:
        for group in table.row_groups:
            for batch in table.read_batches(group, names):
                values = {key: _list_values(batch.column(name)) for key, name in columns.items()}
                yield from (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} is corrupted ({in_short(error)}): write it again") from None


def _list_values(column: pa.Array) -> Sequence[Any]:
    """Return a column as Python values; floats as numpy's, which know how many digits they have.

    Lists of text share their values. OSError for a list that is too long.
    """
    if is_list_of_scalars(column.type):
        lists = column.cast(pa.list_(column.type.value_type))
        ends = lists.offsets.to_pylist()
        if max((high - low for low, high in itertools.pairwise(ends)), default=0) > MAX_LABELS:
            raise OSError(f"a row has more than {MAX_LABELS:,} labels")
        if not pa.types.is_dictionary(column.type.value_type):
            return column.to_pylist()
        words, flat = [*lists.values.dictionary.to_pylist(), None], lists.values.indices.fill_null(-1).to_pylist()
        rows = zip(itertools.pairwise(ends), lists.is_valid().to_pylist(), strict=True)
        return [[words[n] for n in flat[low:high]] if is_valid else None for (low, high), is_valid in rows]
    return column.to_numpy(zero_copy_only=False) if pa.types.is_floating(column.type) else column.to_pylist()


@dataclass(frozen=True, slots=True)
class TableCell:
    """One image in a table."""

    table: ImageTable
    row: int

    def __str__(self) -> str:
        return f"{self.table.path}/{self.row}"

    def read_bytes(self) -> bytes:
        return self.table.read_image(self.row)

    def identity(self) -> bytes | None:
        return derive_identity(path_identity(self.table.path), self.row)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as for a process on another machine, it opens its table there."""
        return _reopen_cell, (self.table.path, self.row)

    def pack(self) -> PackedFile:
        return self.table, lambda _, row, __: TableCell(self.table, row), "", self.row, 0


_tables: dict[str, ImageTable] = {}
"""The table that is open for cells that came from another process."""


def _reopen_cell(path: Path | RemotePath, row: int) -> TableCell:
    if str(path) not in _tables:
        _tables.clear()
        _tables[str(path)] = ImageTable(path, RowGroupCache())
    return TableCell(_tables[str(path)], row)


def find_image_column(schema: pa.Schema) -> str | None:
    """Return the image column: structs with bytes, or the only column of bytes. None for a manifest."""
    structs = [
        f.name
        for f in schema
        if pa.types.is_struct(f.type)
        and f.type.get_field_index("bytes") >= 0
        and _is_binary(f.type.field("bytes").type)
    ]
    plain = [f.name for f in schema if _is_binary(f.type) and f.name not in _TEXT_COLUMNS]
    return next(iter(structs), None) or (plain[0] if len(plain) == 1 else None)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def read_parquet(
    paths: Sequence[Path] | Sequence[RemotePath],
    group: str | None = None,
    task: str = "auto",
    request: ColumnRequest | None = None,
) -> Source:
    """Find the images in these tables. group: a column; rows with the same value stay in one split. task: data.task.
    request: the columns that join the images; if None, none.

    DataError if a table is corrupted, or has no labels: neither a column of them, nor columns of 0 and 1.
    """
    folder, names = split_common_folder(paths)
    builder, cache, findings = SourceBuilder(), RowGroupCache(), dict[str, None]()
    trusted: set[str] = set()
    flags: list[str] = []
    request = request or ColumnRequest()
    for path, name, named_split in zip(paths, names, infer_splits(names), strict=True):
        table = ImageTable(path, cache)
        have, label = table.schema.names, find_label_column(table.schema)
        found = None
        if label is None and table.column is not None:
            others = (table.column, "split", *([group] if group else []), *request.names)
            candidates = list_flag_columns(table.schema, others)
            found = class_columns.find_class_columns(str(path), candidates, _read_rows(path, table, candidates))
        if table.column is None or (label is None and found is None):
            what = "column of images (structs with bytes, or bytes)" if table.column is None else "column label"
            raise DataError(f"{path}: there is no {what}, only {list_few(have, 8)}: rename or add it")
        if group is not None and group not in have:
            raise DataError(f"{path}: data.group {group} is no column ({list_few(have, 8)}): give one of them")
        if found is not None and found.names != (flags := flags or found.names):
            raise DataError(f"{path} has other columns of 0 and 1 than {paths[0]}: give all tables the same")
        class_names = None if label is None else read_class_names(table.schema, label)
        trusted |= set(class_names or ())
        findings |= dict.fromkeys(describe_repeated(str(folder), class_names or ()))
        findings |= dict.fromkeys(found.findings if found else ())
        reserved = [*([label] if label else flags), *(["split"] if "split" in have else [])]
        single = list_single_valued(table.schema, request.names)
        joined = request.choose(str(path), single, [*reserved, table.column], group)
        if not request:
            findings |= dict.fromkeys(describe_unused(str(folder), list_free(single, [*reserved, table.column, group])))
        wanted: list[str] = [*dict.fromkeys([*reserved, *([group] if group else []), *joined])]
        for row, (where, values) in enumerate(_read_rows(path, table, wanted)):
            where = f"{path} {where}"
            split = parse_split(where, values["split"]) if "split" in have else named_split
            if label is None:
                labels = class_columns.read_flags(where, flags, values)
            else:
                labels = parse_labels(where, values[label], class_names)
            in_group = None if group is None or labels is None else parse_group(where, group, values[group])
            cells = read_cells(where, joined, values)
            builder.add(f"{name}/{row}", TableCell(table, row), labels, split, in_group, cells)
    if not builder:
        raise DataError(f"{paths[0]} has no labelled images: add labels")
    name = paths[0].stem if len(paths) == 1 else folder.name
    how = class_columns.HOW if flags else "in lists"
    return builder.build(name, task=task, where=str(folder), trusted=trusted, how=how, findings=tuple(findings))


def _read_rows(path: Path | RemotePath, table: ImageTable, columns: Sequence[str]) -> Iterator[Row]:
    rows = read_columns(path, table.file, {column: column for column in columns}) if columns else ()
    return ((f"row {number}", values) for number, values in enumerate(rows, 1))


def find_label_column(schema: pa.Schema, names: Sequence[str] = LABEL_COLUMNS) -> str | None:
    """Return the column of labels, by its name; None if there is none."""
    return next((column for column in names if column in schema.names), None)


def list_flag_columns(schema: pa.Schema, others: Collection[str]) -> list[str]:
    """Return the columns that may hold 0 and 1, by their types. others: columns that hold something else."""
    kinds = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string)
    return [one.name for one in schema if one.name not in others and any(is_kind(one.type) for is_kind in kinds)]


def list_single_valued(schema: pa.Schema, named: Collection[str]) -> list[str]:
    """Return the columns with a text, a number or a date in each row; and those that are named."""
    return [f.name for f in schema if f.name in named or not (pa.types.is_nested(f.type) or _is_binary(f.type))]


def read_class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the class names in the table's metadata; None if there are none."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = about["info"]["features"][label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # of a list of labels
        names = feature["names"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
