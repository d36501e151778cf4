"""A manifest: a CSV or Parquet table with the columns path and label, and optionally split.

Or a list: lines of a path and its label, as in Caffe and ImageNet's kits (.txt), or MXNet's tab-separated lines of a
number, a label and a path (.lst).
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from classifier.data.columns.request import ColumnRequest, read_cells
from typing import Any

from classifier.data.labels.class_names import clean_label
from classifier.data.labels.repeated_rows import RepeatedRows
from classifier.data.labels.values import parse_group, parse_labels
from classifier.data.readers.archive import normalize_member_name
from classifier.data.readers.csv_rows import find_dialect, open_text, read_csv_rows
from classifier.data.readers.file_bytes import File
from classifier.data.readers.manifests.image_folder import ImageFolder
from classifier.data.readers.manifests.rows import LIST_SUFFIXES, PATH_AND_LABEL, open_rows
from classifier.data.readers.remote import RemotePath
from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.readers.tree import is_image
from classifier.data.split_names import SPLIT_ALIASES, parse_split
from classifier.errors import DataError

JSON_SUFFIXES = (".jsonl", ".ndjson")
JSON_KEYS = ("path", "file_name")


def read_manifest(
    manifest: Path | RemotePath,
    *,
    group: str | None = None,
    outside: bool = False,
    task: str = "auto",
    request: ColumnRequest | None = None,
) -> Source:
    """Find the images that a manifest lists; paths are absolute, or relative to the manifest's folder.

    group: a column; rows with the same value stay in one split. outside: allow paths, and links, that lead out of the
    manifest's folder. task: data.task; labels may be lists, columns of 0 and 1, or rows of the same image. An empty
    split is drawn; rows without a label are left out, with a finding. request: the columns that join the images; if
    None, none. DataError names the line of a missing file, an
    unknown split, or a second label where there can be only one.
    """
    builder, repeated = SourceBuilder(), RepeatedRows(str(manifest), task)
    folder = manifest.parent if isinstance(manifest, RemotePath) else ImageFolder(manifest, outside)
    table = open_rows(manifest, group, request or ColumnRequest())
    trusted = set(table.class_names)
    for where, row in table.rows:
        line = f"{manifest} {where}"
        name, label = row["path"], parse_labels(line, row["label"])
        name = os.fsdecode(name) if isinstance(name, bytes) else str(name or "")
        if not name.strip():
            raise DataError(f"{line} has no path: fill it in, or remove the line")
        split = parse_split(line, row.get("split"))
        if label is None:
            builder.add(name, Path(name), None, split)
            continue
        if isinstance(folder, RemotePath):  # not checked for existence: one request per file would take too long
            path = folder / normalize_member_name(line, name)
            id_ = path.relative_to(folder).as_posix()
        else:
            path = folder.find_existing(line, name)
            id_ = folder.id_of(path)
        in_group = None if group is None else parse_group(line, group, row[group])
        cells = read_cells(line, table.columns, row)
        if repeated.add(where, id_, name, label, (split, in_group, *cells.values())):
            is_new_text = isinstance(label, str) and label not in builder.class_indices
            if is_new_text and clean_label(str(label)) in map(clean_label, id_.split("/")):
                trusted.add(str(label))  # the name of a class folder is no list of labels
            builder.add(id_, path, label, split, in_group, cells)
    if not builder:
        unlabelled = f": none of its {len(builder.unlabelled):,} lines has a label" if builder.unlabelled else ""
        raise DataError(f"{manifest} lists no images{unlabelled}: add a line path,label for each")
    if manifest.suffix.lower() in LIST_SUFFIXES:
        _refuse_splits(manifest, [label for label in builder.class_indices if isinstance(label, str)])
    how = table.how
    if lists := repeated.find_lists():
        builder.set_lists(lists)
        how = "in a row each"
    return builder.build(
        manifest.stem, task=task, where=str(manifest), trusted=trusted, how=how, findings=table.findings
    )


def _refuse_splits(manifest: Path | RemotePath, labels: Sequence[str]) -> None:
    """Raise a DataError for a list in which most labels end with a split: they are no lists of labels."""
    ends = [re.split(r"[\s,;]+", label) for label in labels]
    if 2 * sum(len(words) > 1 and words[-1].lower() in SPLIT_ALIASES for words in ends) > len(labels):
        raise DataError(f"{manifest} has a path, a label and a split in each line: add a first line path,label,split")


def list_paths(manifest: Path | RemotePath, *, outside: bool = False) -> Iterator[tuple[str, File]]:
    """Yield the images that a manifest, a list or JSON Lines name, labelled or not: as written there, and the file.

    Whether a file exists is seen when it is read. outside, and DataError: as `read_manifest`.
    """
    folder = manifest.parent if isinstance(manifest, RemotePath) else ImageFolder(manifest, outside)
    for where, value in _read_paths(manifest):
        line = f"{manifest} {where}"
        name = os.fsdecode(value) if isinstance(value, bytes) else str(value or "")
        if not name.strip():
            raise DataError(f"{line} has no path: fill it in, or remove the line")
        if isinstance(folder, RemotePath):
            yield name, folder / normalize_member_name(line, name)
        else:
            yield name, folder.find(line, name) or folder.path / name


def _read_paths(manifest: Path | RemotePath) -> Iterator[tuple[str, Any]]:
    suffix = manifest.suffix.lower()
    if suffix in JSON_SUFFIXES:
        yield from _read_json_paths(manifest)
    elif suffix in (".parquet", ".pq"):
        from classifier.data.readers.parquet import open_table, read_columns

        table = open_table(manifest)
        if "path" not in table.schema.names:
            have = ", ".join(table.schema.names) or "none"
            raise DataError(f"{manifest} has neither images nor a column path (only {have}): rename or add it")
        for number, values in enumerate(read_columns(manifest, table, {"path": "path"}), 1):
            yield f"row {number}", values["path"]
    else:
        with open_text(manifest) as (file, head):
            if suffix in LIST_SUFFIXES and find_dialect(head, ["path"], needs_names=True) is None:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"line {number}", _cut_label(line, is_index=suffix == ".lst")
                return
        for where, row in read_csv_rows(manifest, ["path"]):
            yield where, row["path"]


def _cut_label(line: str, *, is_index: bool) -> str:
    """Return the path in a line of a list, with or without a label."""
    values = [value.strip() for value in line.strip("\r\n").split("\t")]
    if len(values) > 1:
        return values[-1] if is_index and len(values) > 2 else values[0]
    match = None if is_image(values[0]) else PATH_AND_LABEL.fullmatch(values[0])
    return match[1].strip() if match else values[0]


def _read_json_paths(manifest: Path | RemotePath) -> Iterator[tuple[str, Any]]:
    """Yield the paths in JSON Lines: of objects by their key path, or file_name, as Hugging Face calls it."""
    with open_text(manifest) as (file, _):
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{manifest} line {number} is no JSON: write an object with a key path") from None
            if isinstance(value, dict):
                value = next((value[key] for key in JSON_KEYS if key in value), None)
            if not isinstance(value, str):
                raise DataError(f"{manifest} line {number} has no path: write an object with a key path")
            yield f"line {number}", value
