"""Parquet tables that hold the pictures themselves, as Hugging Face's `datasets` writes them.

A column of structs {bytes, path}, or of bytes, and a column of labels, whose class names stand in the table's metadata.
Tables are train, validation or test by their name (train-00000-of-00004.parquet), or row by row by a column `split`.
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
from classifier.data.readers.remote import RemotePath, path_identity, split_common_folder, open_random_access
from classifier.data.readers.source import SourceBuilder, Source, reject_ambiguous_labels
from classifier.data.readers.tree import PackedFile, derive_identity
from classifier.data.readers.webdataset import infer_split
from classifier.errors import DataError, in_short, list_few

LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
CACHED_ROW_GROUPS = 8
"""Row groups, of all tables of a set together, whose pictures stay in memory: those that threads, which go side by
side, are at."""


class RowGroupCache:
    """The row groups that were read last."""

    def __init__(self) -> None:
        self._groups: collections.OrderedDict[tuple[int, int], pa.ChunkedArray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """That of this key, which `read` reads where it is not there."""
        with self._lock:
            if key not in self._groups:
                self._groups[key] = read()
                if len(self._groups) > CACHED_ROW_GROUPS:
                    self._groups.popitem(last=False)
            return self._groups[key]


class ImageTable:
    """The pictures of one file. Threads may read them all at once. kept: shared by the tables of a set."""

    def __init__(self, path: Path | RemotePath, kept: RowGroupCache) -> None:
        """DataError if it is no Parquet file."""
        self.path, self._kept = path, kept
        try:
            self.file = pq.ParquetFile(open_random_access(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is no Parquet table, or damaged ({in_short(error)}): write it again") from None
        self.schema = self.file.schema_arrow
        sizes = [self.file.metadata.row_group(n).num_rows for n in range(self.file.num_row_groups)]
        self.starts = [0, *itertools.accumulate(sizes)]
        self.column = find_image_column(self.schema)

    def read_image(self, row: int) -> bytes:
        """The bytes of one picture. OSError if there are none, or if they are damaged."""
        group = bisect.bisect_right(self.starts, row) - 1
        pictures = self._kept.get((id(self), group), functools.partial(self._read_row_group, group))
        cell = pictures[row - self.starts[group]]
        if pa.types.is_struct(cell.type):
            cell = cell["bytes"] if cell.is_valid else cell
        if not cell.is_valid:
            raise OSError("its table has no bytes of it")
        return cell.as_buffer().to_pybytes()

    def _read_row_group(self, group: int) -> pa.ChunkedArray:
        try:
            return self.file.read_row_group(group, columns=[self.column]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"damaged in its table: {in_short(error)}") from None


@dataclass(frozen=True, slots=True)
class TableCell:
    """One picture of a table."""

    table: ImageTable
    row: int

    def read_bytes(self) -> bytes:
        return self.table.read_image(self.row)

    def identity(self) -> bytes | None:
        return derive_identity(path_identity(self.table.path), self.row)

    def pack(self) -> PackedFile:
        return self.table, lambda _, row, __: TableCell(self.table, row), "", self.row, 0


def find_image_column(schema: pa.Schema) -> str | None:
    """The column of pictures: of structs with bytes, or the only one of bytes. None if it is a plain manifest."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain = [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    return next(iter(structs), None) or (plain[0] if len(plain) == 1 else None)


def read_parquet(paths: Sequence[Path] | Sequence[RemotePath], group: str | None = None) -> Source:
    """The pictures of these tables. `group`: the column whose values are never split.

    DataError if a table is damaged, or has no labels.
    """
    home, names = split_common_folder(paths)
    found, groups, kept = SourceBuilder(), CompactStrings(), RowGroupCache()
    unlabelled: list[str] = []
    for path, name in zip(paths, names, strict=True):
        table = ImageTable(path, kept)
        label = next((column for column in LABEL_COLUMNS if column in table.schema.names), None)
        if table.column is None or label is None:
            what = "column of pictures (structs with bytes, or bytes)" if table.column is None else "column label"
            raise DataError(
                f"{path}: there is no {what}, only {list_few(table.schema.names, 8)}: name it so, or add it"
            )
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
            found.add(id_, TableCell(table, row), text, split)
            if group is not None:
                groups.add(str(columns["group"][row]))
    if not found:
        raise DataError(f"{paths[0]} lists no labelled pictures: nothing to learn from")
    reject_ambiguous_labels(str(home), found.class_indices)
    findings = (
        (f"{len(unlabelled)} rows have no label and were left out: {list_few(unlabelled)}.",) if unlabelled else ()
    )
    name = paths[0].stem if len(paths) == 1 else home.name
    return found.build(name, groups=groups if group is not None else None, findings=findings)


def _read_column(table: ImageTable, column: str) -> list[Any]:
    try:
        return table.file.read(columns=[column]).column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{table.path} is damaged ({in_short(error)}): write it again") from None


def _read_class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """What the labels' numbers mean, where the table says so."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _parse_class(path: Path | RemotePath, row: int, value: Any, class_names: list[str] | None) -> str | None:
    """A row's class; None where it has none (-1 of a hidden test split is none)."""
    if value is None or value == "" or value == -1:
        return None
    if class_names is None or isinstance(value, str):
        return str(value)
    if not isinstance(value, int) or not 0 <= value < len(class_names):
        raise DataError(f"{path} row {row + 1}: the label {value!r} is none of its {len(class_names)} classes: mend it")
    return class_names[value]
