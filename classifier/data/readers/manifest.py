"""A manifest: a CSV or Parquet table with the columns path and label, and optionally split.

Or a list: lines of a path and its label, as in Caffe and ImageNet's kits (.txt), or MXNet's tab-separated lines of a
number, a label and a path (.lst).
"""

import json
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.labels import class_columns
from classifier.data.labels.class_names import clean_label
from classifier.data.labels.repeated_rows import RepeatedRows
from classifier.data.labels.values import parse_group, parse_labels
from classifier.data.readers.archive import normalize_member_name
from classifier.data.readers.csv_rows import Row, find_dialect, open_text, read_csv_rows
from classifier.data.readers.file_bytes import File
from classifier.data.readers.remote import RemotePath
from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.readers.tree import is_image, leads_outside
from classifier.data.split_names import SPLIT_ALIASES, parse_split
from classifier.errors import DataError
from classifier.text import unescape_surrogates

LIST_SUFFIXES = (".txt", ".lst")
JSON_SUFFIXES = (".jsonl", ".ndjson")
MANIFEST_COLUMNS = ("label", "labels")
"""What the column of labels is called."""
JSON_KEYS = ("path", "file_name")
# The longest path that ends like an image, and what remains; else all up to the last blank.
_PATH_AND_LABEL = re.compile(rf"(.*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[\s,;]+(.+)", re.IGNORECASE)


@dataclass
class _Table:
    """What a manifest's rows are read from. class_names: those that it defines for its numbers, as they are read."""

    rows: Iterator[Row]
    how: str = "in lists"
    """How labels are written where they are lists already."""
    findings: tuple[str, ...] = ()
    class_names: set[str] = field(default_factory=set)


def read_manifest(
    manifest: Path | RemotePath, *, group: str | None = None, outside: bool = False, task: str = "auto"
) -> Source:
    """Find the images that a manifest lists; paths are absolute, or relative to the manifest's folder.

    group: a column; rows with the same value stay in one split. outside: allow paths, and links, that lead out of the
    manifest's folder. task: data.task; labels may be lists, columns of 0 and 1, or rows of the same image. An empty
    split is drawn; rows without a label are left out, with a finding. DataError names the line of a missing file, an
    unknown split, or a second label where there can be only one.
    """
    builder, repeated = SourceBuilder(), RepeatedRows(str(manifest), task)
    folder = manifest.parent if isinstance(manifest, RemotePath) else _ImageFolder(manifest, outside)
    table = _open_table(manifest, group)
    trusted = table.class_names
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
        if repeated.add(where, id_, name, label, (split, in_group)):
            is_new_text = isinstance(label, str) and label not in builder.class_indices
            if is_new_text and clean_label(str(label)) in map(clean_label, id_.split("/")):
                trusted.add(str(label))  # the name of a class folder is no list of labels
            builder.add(id_, path, label, split, in_group)
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


def _open_table(manifest: Path | RemotePath, group: str | None) -> _Table:
    suffix = manifest.suffix.lower()
    columns = ("path", "label", "split", *([group] if group else []))
    if suffix in (".csv", ".tsv"):
        return _open_csv(manifest, columns)
    if suffix in (".parquet", ".pq"):
        return _open_parquet(manifest, columns)
    if suffix in LIST_SUFFIXES:
        with open_text(manifest) as (_, head):
            if find_dialect(head, [column for column in columns if column != "label"], needs_names=True):
                return _open_csv(manifest, columns)
        if group is None:
            return _Table(_read_list_rows(manifest))
        raise DataError(f"{manifest} is a list of paths and labels, and has no column {group}: write it as CSV")
    raise DataError(
        f"{manifest} is not a folder, archive (.zip, .tar), manifest (.csv, .tsv, .parquet) or list (.txt, .lst): "
        "give one of these"
    )


def list_paths(manifest: Path | RemotePath, *, outside: bool = False) -> Iterator[tuple[str, File]]:
    """Yield the images that a manifest, a list or JSON Lines name, labelled or not: as written there, and the file.

    Whether a file exists is seen when it is read. outside, and DataError: as `read_manifest`.
    """
    folder = manifest.parent if isinstance(manifest, RemotePath) else _ImageFolder(manifest, outside)
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
    match = None if is_image(values[0]) else _PATH_AND_LABEL.fullmatch(values[0])
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


class _ImageFolder:
    """A manifest's folder, in which its images are found."""

    def __init__(self, manifest: Path, allows_outside: bool) -> None:
        self.path, self.allows_outside = manifest.parent, allows_outside
        self._normal = os.path.normpath(self.path)
        self._outside: dict[Path, bool] = {}
        """Folder -> whether it is outside."""

    def find(self, where: str, name: str) -> Path | None:
        """Return the image of this name, also if it is written as on Windows or a Mac; None if there is none.

        DataError if it is outside.
        """
        for spelling in _spell_path(name):
            path = self.path / spelling
            if not self.allows_outside and self._leads_outside(path):
                raise DataError(
                    f"{where}: {name} leads out of {self.path}: if you trust this manifest, set --data.outside true"
                )
            if os.path.isfile(path):  # unlike Path.is_file, no error for impossible names
                return path
        return None

    def find_existing(self, where: str, name: str) -> Path:
        """`find`, but DataError if there is none."""
        if path := self.find(where, name):
            return path
        what = "is a folder" if os.path.isdir(self.path / name) else "does not exist"
        raise DataError(f"{where}: {name} {what}: correct the path (it is relative to {self.path}), or remove the line")

    def id_of(self, path: Path) -> str:
        """Return the normalized path, relative to the folder if it is inside."""
        normal = os.path.normpath(path)
        inside = (self._normal == "." and not os.path.isabs(normal)) or normal.startswith(
            os.path.join(self._normal, "")
        )
        return Path(os.path.relpath(normal, self._normal) if inside else normal).as_posix()

    def _leads_outside(self, path: Path) -> bool:
        """tree.leads_outside, which asks the disk for every link on the way, once for all images of a folder."""
        above = path.parent
        if above not in self._outside:
            self._outside[above] = leads_outside(above, self.path)
        is_last_in_doubt = path.name == ".." or os.path.islink(path)
        return leads_outside(path, self.path) if is_last_in_doubt else self._outside[above]


def _spell_path(name: str) -> Iterator[str]:
    """Yield the ways in which this path may be meant: exactly, then as other systems and programs write it."""
    yield name
    if name.startswith("file://"):
        yield urllib.parse.unquote(urllib.parse.urlsplit(name).path)
    if (unescaped := unescape_surrogates(name)) != name:
        yield unescaped
    plain = name.strip()
    for spelling in (plain, plain.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            if (other := unicodedata.normalize(form, spelling)) != name:
                yield other


def _read_list_rows(manifest: Path | RemotePath) -> Iterator[Row]:
    """Yield rows of a path and its label, or of a number, a label and a path; a tab decides where a path ends."""
    with open_text(manifest) as (file, _):
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{manifest} line {number}"
            values = [value.strip() for value in line.strip("\r\n").split("\t")]
            is_index = manifest.suffix.lower() == ".lst" and len(values) > 2  # MXNet's
            if is_index:
                _, *labels, path = values
                label = "\t".join(labels)
            elif len(values) > 1:
                path, label = values[0], "\t".join(values[1:])
            elif match := _PATH_AND_LABEL.fullmatch(values[0]):
                path, label = match.groups()
            else:
                path, _, label = values[0].rpartition(" ")
            if not path:
                raise DataError(f"{where} must have a path and a label, separated by a blank")
            yield f"line {number}", {"path": path.strip(), "label": label}


def _open_csv(manifest: Path | RemotePath, columns: Sequence[str]) -> _Table:
    with open_text(manifest) as (_, head):
        is_tsv = manifest.suffix.lower() == ".tsv"
        others = [column for column in columns if column != "label"]
        if find_dialect(head, columns, is_tsv=is_tsv) is None and (
            dialect := find_dialect(head, others, is_tsv=is_tsv, needs_names=True)
        ):
            named = [name for n, name in enumerate(dialect.names) if name and n not in dialect.columns.values()]
            return _read_class_columns(
                manifest, others, named, lambda wanted: read_csv_rows(manifest, wanted)
            ) or _Table(read_csv_rows(manifest, columns))
    return _Table(read_csv_rows(manifest, columns))


def _open_parquet(manifest: Path | RemotePath, columns: Sequence[str]) -> _Table:
    from classifier.data.readers.parquet import (
        find_label_column,
        list_flag_columns,
        open_table,
        read_class_names,
        read_columns,
    )

    table = open_table(manifest)
    have, label = table.schema.names, find_label_column(table.schema, MANIFEST_COLUMNS)
    class_names = None if label is None else read_class_names(table.schema, label)

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        names = {column: label if column == "label" and label else column for column in wanted}
        for number, values in enumerate(read_columns(manifest, table, names), 1):
            if "label" in values:
                labels = parse_labels(f"{manifest} row {number}", values["label"], class_names)
                values |= {"label": labels}
            yield f"row {number}", values

    others = [column for column in columns if column != "label" and (column in have or column != "split")]
    missing = [column for column in others if column not in have]
    if label is None and not missing:
        named = list_flag_columns(table.schema, others)
        if (found := _read_class_columns(manifest, others, named, read)) is not None:
            return found
        missing = ["label"]
    if missing:
        raise DataError(
            f"{manifest}: there is no column {missing[0]} (only {', '.join(have) or 'none'}): rename or add it"
        )
    return _Table(read(["label", *others]), class_names=set(class_names or ()))


def _read_class_columns(
    manifest: Path | RemotePath,
    others: Sequence[str],
    named: Sequence[str],
    read: Callable[[Sequence[str]], Iterator[Row]],
) -> _Table | None:
    """Return rows whose labels are the names of their columns of 0 and 1; None if there are no such columns."""
    found = class_columns.find_class_columns(str(manifest), named, read(named))
    if found is None:
        return None

    def read_rows() -> Iterator[Row]:
        for where, row in read([*others, *found.names]):
            yield where, row | {"label": class_columns.read_flags(f"{manifest} {where}", found.names, row)}

    return _Table(read_rows(), class_columns.HOW, tuple(found.findings))
