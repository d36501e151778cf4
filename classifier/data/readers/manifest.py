"""A manifest: a CSV or Parquet table with the columns path and label, and optionally split.

Or a list: lines of a path and its label, as in Caffe and ImageNet's kits (.txt), or MXNet's tab-separated lines of a
number, a label and a path (.lst).
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.data.readers.archive import normalize_member_name
from classifier.data.readers.remote import RemotePath, open_random_access
from classifier.data.readers.source import Source, from_files, reject_ambiguous_labels
from classifier.data.split_names import SPLIT_ALIASES, UNASSIGNED
from classifier.errors import DataError, in_short

LIST_SUFFIXES = (".txt", ".lst")

Row = tuple[str, dict[str, Any]]
"""Its location ("line 7"), and its values by column; None for a missing value."""


def read_manifest(manifest: Path | RemotePath, *, group: str | None = None, outside: bool = False) -> Source:
    """Find the images that a manifest lists; paths are absolute, or relative to the manifest's folder.

    group: a column; rows with the same value stay in one split. outside: allow paths outside the manifest's folder.
    An empty split is drawn. DataError names the line of a missing file, an unknown split or a second label.
    """
    suffix = manifest.suffix.lower()
    columns = ("path", "label", "split", *([group] if group else []))
    if suffix in (".csv", ".tsv"):
        rows = read_csv_rows(manifest, "\t" if suffix == ".tsv" else ",", columns)
    elif suffix in (".parquet", ".pq"):
        rows = _read_parquet_rows(manifest, columns)
    elif suffix in LIST_SUFFIXES and group is None:
        rows = _read_list_rows(manifest)
    elif suffix in LIST_SUFFIXES:
        raise DataError(f"{manifest} is a list of paths and labels, and has no column {group}: write it as CSV")
    else:
        raise DataError(
            f"{manifest} is not a folder, archive (.zip, .tar), manifest (.csv, .tsv, .parquet) or list (.txt, .lst): "
            "give one of these"
        )
    listed: dict[str, tuple[str, str]] = {}
    files, groups = [], []
    for where, row in rows:
        path, label, split = _parse_row(f"{manifest} {where}", manifest.parent, row, outside)
        id_ = _image_id(path, manifest.parent)
        if id_ in listed:
            first, first_label = listed[id_]
            if first_label != label:
                raise DataError(
                    f"{manifest} {where}: {row['path']} has two labels, {first_label!r} ({first}) and {label!r}: "
                    "keep one, since each image has one class"
                )
            raise DataError(f"{manifest} {where}: {row['path']} is listed already ({first}): keep one of the two")
        listed[id_] = (where, label)
        files.append((id_, path, label, split))
        if group is not None:
            if row[group] in (None, ""):
                raise DataError(f"{manifest} {where} has no {group}: fill it in, or name another column in data.group")
            groups.append(str(row[group]))
    if not files:
        raise DataError(f"{manifest} lists no images: add a line path,label for each")
    reject_ambiguous_labels(str(manifest), (label for _, _, label, _ in files))
    return from_files(manifest.stem, files, groups=groups if group is not None else None)


def _parse_row(
    where: str, folder: Path | RemotePath, row: dict[str, Any], outside: bool
) -> tuple[Path | RemotePath, str, int]:
    """Return the path, label and split of a row."""
    if not row["path"]:
        raise DataError(f"{where} has no path: fill it in, or remove the line")
    label, split = parse_label(where, row["label"]), parse_split(where, row.get("split"))
    if isinstance(folder, RemotePath):  # not checked for existence: one request per file would take too long
        return folder / normalize_member_name(where, str(row["path"])), label, split
    path = folder / str(row["path"])
    if not outside and not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise DataError(
            f"{where}: {row['path']} leads out of {folder}: if you trust this manifest, set --data.outside true"
        )
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(
            f"{where}: {row['path']} {what}: correct the path (it is relative to {folder}), or remove the line"
        )
    return path, label, split


def parse_split(where: str, word: Any) -> int:
    """Return the split that a row names, or UNASSIGNED if it names none. DataError for an unknown split."""
    word = "" if word is None else str(word)
    split = SPLIT_ALIASES.get(word.lower(), UNASSIGNED)
    if word and split == UNASSIGNED:
        raise DataError(f"{where}: unknown split {word!r}: write {', '.join(SPLIT_ALIASES)}, or nothing")
    return split


def parse_label(where: str, value: Any) -> str:
    """Return a row's only label unchanged, blanks included. DataError if there is none, or several."""
    if value is None or value == "":
        raise DataError(f"{where} has no label: fill it in, or remove the line")
    text = str(value)
    several = isinstance(value, (list, tuple, dict)) or ";" in text or "|" in text
    if several or (text.startswith("[") and text.endswith("]")):
        raise DataError(f"{where} has several labels ({text[:60]}): keep one, since each image has one class")
    return text


def _image_id(path: Path | RemotePath, folder: Path | RemotePath) -> str:
    """Return the normalized path, relative to the manifest's folder if inside it."""
    if isinstance(path, RemotePath) or isinstance(folder, RemotePath):
        assert isinstance(path, RemotePath)
        assert isinstance(folder, RemotePath)
        return path.relative_to(folder).as_posix()
    normal = Path(os.path.normpath(path))
    base = Path(os.path.normpath(folder))
    return (normal.relative_to(base) if normal.is_relative_to(base) else normal).as_posix()


def read_csv_rows(manifest: Path | RemotePath, delimiter: str, wanted: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file; of the wanted columns, only split may be missing. DataError if it is not CSV."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            columns = _find_columns(f"{manifest} line 1", next(lines, []), wanted)
            for values in lines:
                where = f"line {lines.line_num}"
                if not values:
                    continue
                needed = [columns[c] for c in columns if c not in ("split", "*")]
                if len(values) <= max(needed) or len(values) > columns["*"]:
                    raise DataError(
                        f"{manifest} {where} has {len(values)} values, but the first line {columns['*']}: "
                        "make them equal, and quote values that contain the delimiter"
                    )
                yield where, {c: values[n] if n < len(values) else None for c, n in columns.items() if c != "*"}
    except UnicodeDecodeError:
        raise DataError(f"{manifest} is not UTF-8 text: save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{manifest} is not a CSV table ({error}): save it as CSV again") from None
    except OSError as error:
        raise DataError(f"{manifest} cannot be read ({error.strerror or error}): make it readable") from None


def _read_list_rows(manifest: Path | RemotePath) -> Iterator[Row]:
    """Yield rows of a path and its label, or of a number, a label and a path."""
    try:
        lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{manifest} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{manifest} cannot be read ({error.strerror or error}): make it readable") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        tabs = line.split("\t")
        if manifest.suffix.lower() == ".lst" and len(tabs) == 3:
            _, label, path = tabs
        else:
            path, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not path.strip():
            raise DataError(f"{manifest} line {number} must have a path and a label, separated by a blank")
        yield f"line {number}", {"path": path.strip(), "label": label.strip()}


def _find_columns(where: str, names: list[str], wanted: Sequence[str]) -> dict[str, int]:
    """Return the position of each wanted column; under '*', the number of columns."""
    for column in (c for c in wanted if c != "split"):
        if column not in names:
            have = ", ".join(names) or "none"
            raise DataError(f"{where}: there is no column {column} (only {have}): rename or add it")
    for column in wanted:
        if names.count(column) > 1:
            raise DataError(f"{where}: the column {column} appears twice: keep one")
    return {column: names.index(column) for column in wanted if column in names} | {"*": len(names)}


def _read_parquet_rows(manifest: Path | RemotePath, wanted: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(open_random_access(manifest)) as file:
            names = _find_columns(str(manifest), file.schema_arrow.names, wanted)
            label = file.schema_arrow.field("label").type
            if pa.types.is_nested(label):
                raise DataError(f"{manifest}: the column label has several labels per image ({label}): keep one")
            columns = [column for column in names if column != "*"]
            number = 0
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        reason = in_short(error)
        raise DataError(f"{manifest} is not a Parquet table, or corrupted ({reason}): write it again") from None
