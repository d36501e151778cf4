"""The rows of a manifest, a list or JSON Lines that are to be classified, labelled or not."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classifier.data.readers.archive import normalize_member_name
from classifier.data.readers.csv_rows import find_dialect, open_text, read_csv_rows
from classifier.data.readers.file_bytes import File
from classifier.data.readers.manifests.image_folder import ImageFolder
from classifier.data.readers.manifests.rows import LIST_SUFFIXES, PATH_AND_LABEL
from classifier.data.readers.remote import RemotePath
from classifier.data.readers.tree import is_image
from classifier.errors import DataError

JSON_SUFFIXES = (".jsonl", ".ndjson")
JSON_KEYS = ("path", "file_name")


class ListedRow(NamedTuple):
    """An image, as it is written in the manifest, its file, and the values of columns beside it."""

    name: str
    file: File | None
    """None where the path is empty, or there is no column of paths: columns alone."""
    columns: Mapping[str, Any] | None = None


def list_rows(
    manifest: Path | RemotePath, *, columns: Sequence[str] = (), outside: bool = False
) -> Iterator[ListedRow]:
    """Yield the rows of a manifest, a list or JSON Lines.

    columns: those to read, as far as it has them; with some, a path may be missing. Whether a file exists is seen when
    it is read. outside, and DataError: as `read_manifest`.
    """
    folder = manifest.parent if isinstance(manifest, RemotePath) else ImageFolder(manifest, outside)
    for where, value, values in _read_rows(manifest, columns):
        line = f"{manifest} {where}"
        name = os.fsdecode(value) if isinstance(value, bytes) else str(value or "")
        if not name.strip():
            if not values:
                raise DataError(f"{line} has no path: fill it in, or remove the line")
            yield ListedRow(line, None, values)
        elif isinstance(folder, RemotePath):
            yield ListedRow(name, folder / normalize_member_name(line, name), values)
        else:
            yield ListedRow(name, folder.find(line, name) or folder.path / name, values)


def list_columns(manifest: Path | RemotePath, columns: Sequence[str]) -> list[str]:
    """Return which of these columns a manifest has; all of them for JSON Lines, whose objects have different keys."""
    suffix = manifest.suffix.lower()
    if suffix in JSON_SUFFIXES or not columns:
        return [*columns]
    if suffix in (".parquet", ".pq"):
        from classifier.data.readers.parquet import open_table

        have = open_table(manifest).schema.names
    else:
        with open_text(manifest) as (_, head):
            names = [find_dialect(head, [one], is_tsv=suffix == ".tsv", needs_names=True) for one in ("path", *columns)]
            have = next((dialect.names for dialect in names if dialect), [])
    return [name for name in columns if name in have]


def _read_rows(
    manifest: Path | RemotePath, columns: Sequence[str]
) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Yield where a row is, its path, and its values of the columns."""
    suffix = manifest.suffix.lower()
    if suffix in JSON_SUFFIXES:
        yield from _read_json_rows(manifest, columns)
        return
    columns = list_columns(manifest, columns)
    if suffix in (".parquet", ".pq"):
        from classifier.data.readers.parquet import open_table, read_columns

        table = open_table(manifest)
        names = [name for name in ("path", *columns) if name in table.schema.names]
        if "path" not in names and not columns:
            have = ", ".join(table.schema.names) or "none"
            raise DataError(f"{manifest} has neither images nor a column path (only {have}): rename or add it")
        for number, values in enumerate(read_columns(manifest, table, {name: name for name in names}), 1):
            yield f"row {number}", values.get("path"), _choose(values, columns)
        return
    wanted = ["path", *columns]
    with open_text(manifest) as (file, head):
        has_paths = find_dialect(head, ["path"], is_tsv=suffix == ".tsv", needs_names=True) is not None
        if suffix in LIST_SUFFIXES and not has_paths and not columns:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _cut_label(line, is_index=suffix == ".lst"), None
            return
    if columns and not has_paths:
        wanted.remove("path")
    for where, row in read_csv_rows(manifest, wanted):
        yield where, row.get("path"), _choose(row, columns)


def _choose(values: Mapping[str, Any], columns: Sequence[str]) -> Mapping[str, Any] | None:
    return {name: values[name] for name in columns} if columns else None


def _cut_label(line: str, *, is_index: bool) -> str:
    """Return the path in a line of a list, with or without a label."""
    values = [value.strip() for value in line.strip("\r\n").split("\t")]
    if len(values) > 1:
        return values[-1] if is_index and len(values) > 2 else values[0]
    match = None if is_image(values[0]) else PATH_AND_LABEL.fullmatch(values[0])
    return match[1].strip() if match else values[0]


def _read_json_rows(
    manifest: Path | RemotePath, columns: Sequence[str]
) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Yield the rows of JSON Lines: paths of objects by their key path, or file_name, as Hugging Face calls it."""
    with open_text(manifest) as (file, _):
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{manifest} {where} is no JSON: write an object with a key path") from None
            if not isinstance(value, dict):
                value = {"path": value}
            path = next((value[key] for key in JSON_KEYS if key in value), None)
            values = {name: value[name] for name in columns if name in value}
            if not isinstance(path, str) and (path is not None or not values):
                raise DataError(f"{manifest} {where} has no path: write an object with a key path")
            yield where, path, values or None
