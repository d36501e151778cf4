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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from classifier.data.readers.compact import CompactStrings
from classifier.data.readers.manifest import parse_split
from classifier.data.readers.remote import RemotePath, open_random_access, path_identity, split_common_folder
from classifier.data.readers.source import Source, SourceBuilder, reject_ambiguous_labels
from classifier.data.readers.tree import PackedFile, derive_identity
from classifier.data.readers.webdataset import infer_split
from classifier.errors import DataError, in_short, list_few

LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
CACHED_ROW_GROUPS = 8
"""Row groups whose images stay in memory, over all tables of a data set: those that concurrent threads are reading."""


class RowGroupCache:
    """The most recently used row groups."""

    def __init__(self) -> None:
        self._groups: collections.OrderedDict[tuple[int, int], pa.ChunkedArray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """Return the row group of this key, from `read` if it is not cached."""
        with self._lock:
            if key not in self._groups:
                self._groups[key] = read()
                if len(self._groups) > CACHED_ROW_GROUPS:
                    self._groups.popitem(last=False)
            return self._groups[key]


class ImageTable:
    """The images in one file. They may be read from several threads at once."""

    def __init__(self, path: Path | RemotePath, cache: RowGroupCache) -> None:
        """cache: shared by the tables of a data set. DataError if the file is not Parquet."""
        self.path, self._cache = path, cache
        try:
            self.file = pq.ParquetFile(open_random_access(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a Parquet table, or corrupted ({in_short(error)}): write it again"
            ) from None
        self.schema = self.file.schema_arrow
        sizes = [self.file.metadata.row_group(n).num_rows for n in range(self.file.num_row_groups)]
        self.starts = [0, *itertools.accumulate(sizes)]
        self.column = find_image_column(self.schema)

    def read_image(self, row: int) -> bytes:
        """Return the bytes of one image. OSError if there are none, or they are corrupted."""
        group = bisect.bisect_right(self.starts, row) - 1
        images = self._cache.get((id(self), group), functools.partial(self._read_row_group, group))
        cell = images[row - self.starts[group]]
        if pa.types.is_struct(cell.type):
            cell = cell["bytes"] if cell.is_valid else cell
        if not cell.is_valid:
            raise OSError("its table has no bytes for it")
        return cell.as_buffer().to_pybytes()

    def _read_row_group(self, group: int) -> pa.ChunkedArray:
        try:
            return self.file.read_row_group(group, columns=[self.column]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"corrupted in its table: {in_short(error)}") from None


@dataclass(frozen=True, slots=True)
class TableCell:
    """One image in a table."""

    table: ImageTable
    row: int

    def read_bytes(self) -> bytes:
        return self.table.read_image(self.row)

    def identity(self) -> bytes | None:
        return derive_identity(path_identity(self.table.path), self.row)

    def pack(self) -> PackedFile:
        return self.table, lambda _, row, __: TableCell(self.table, row), "", self.row, 0


def find_image_column(schema: pa.Schema) -> str | None:
    """Return the image column: structs with bytes, or the only column of bytes. None for a manifest."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain = [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    return next(iter(structs), None) or (plain[0] if len(plain) == 1 else None)


def read_parquet(paths: Sequence[Path] | Sequence[RemotePath], group: str | None = None) -> Source:
    """Find the images in these tables. group: a column; rows with the same value stay in one split.

    DataError if a table is corrupted, or has no labels.
    """
    folder, names = split_common_folder(paths)
    builder, groups, cache = SourceBuilder(), CompactStrings(), RowGroupCache()
    unlabelled: list[str] = []
    for path, name in zip(paths, names, strict=True):
        table = ImageTable(path, cache)
        label = next((column for column in LABEL_COLUMNS if column in table.schema.names), None)
        if table.column is None or label is None:
            what = "column of images (structs with bytes, or bytes)" if table.column is None else "column label"
            raise DataError(f"{path}: there is no {what}, only {list_few(table.schema.names, 8)}: rename or add it")
        class_names = _read_class_names(table.schema, label)
        wanted = {"label": label, "group": group, "split": "split" if "split" in table.schema.names else None}
        if group is not None and group not in table.schema.names:
            raise DataError(
                f"{path}: data.group {group} is no column ({list_few(table.schema.names, 8)}): give one of them"
            )
        columns = {key: _read_column(table, column) for key, column in wanted.items() if column is not None}
        for row, value in enumerate(columns["label"]):
            id_ = f"{name}/{row}"
            text = _parse_class(path, row, value, class_names)
            if text is None:
                unlabelled.append(id_)
                continue
            split = (
                parse_split(f"{path} row {row + 1}", columns["split"][row]) if "split" in columns else infer_split(name)
            )
            builder.add(id_, TableCell(table, row), text, split)
            if group is not None:
                groups.add(str(columns["group"][row]))
    if not builder:
        raise DataError(f"{paths[0]} has no labelled images: add labels")
    reject_ambiguous_labels(str(folder), builder.class_indices)
    findings = (
        (f"{len(unlabelled)} rows have no label and were left out: {list_few(unlabelled)}.",) if unlabelled else ()
    )
    name = paths[0].stem if len(paths) == 1 else folder.name
    return builder.build(name, groups=groups if group is not None else None, findings=findings)


def _read_column(table: ImageTable, column: str) -> list[Any]:
    try:
        return table.file.read(columns=[column]).column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{table.path} is corrupted ({in_short(error)}): write it again") from None


def _read_class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the class names in the table's metadata; None if there are none."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _parse_class(path: Path | RemotePath, row: int, value: Any, class_names: list[str] | None) -> str | None:
    """Return a row's class; None if it is unlabelled (hidden test splits have -1)."""
    if value is None or value == "" or value == -1:
        return None
    if class_names is None or isinstance(value, str):
        return str(value)
    if not isinstance(value, int) or not 0 <= value < len(class_names):
        raise DataError(
            f"{path} row {row + 1}: the label {value!r} is none of the {len(class_names)} classes: correct it"
        )
    return class_names[value]
