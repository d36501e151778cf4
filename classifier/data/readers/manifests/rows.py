"""Rows of a manifest: of a CSV or Parquet table with a column of labels, or one for each class; of a list."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.data.columns.request import ColumnRequest, describe_unused, list_free
from classifier.data.decoding.decode import SUFFIXES
from classifier.data.labels import class_columns
from classifier.data.labels.values import parse_labels
from classifier.data.readers.csv_rows import Row, find_dialect, open_text, read_csv_rows
from classifier.data.readers.remote import RemotePath
from classifier.errors import DataError, list_few

LIST_SUFFIXES = (".txt", ".lst")
LABEL_COLUMNS = ("label", "labels")
_NO_COLUMNS = ColumnRequest()
# The longest path that ends like an image, and what remains; else all up to the last blank.
PATH_AND_LABEL = re.compile(rf"(.*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[\s,;]+(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class ManifestRows:
    """The rows, each with its path, label, split and group. class_names: those that the manifest gives its numbers."""

    rows: Iterator[Row]
    how: str = "in lists"
    """How labels are written where they are lists already."""
    findings: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """The columns that join the images; each row has their values, too."""


def open_rows(manifest: Path | RemotePath, group: str | None, request: ColumnRequest = _NO_COLUMNS) -> ManifestRows:
    """Open a manifest or list. group: a column. request: those that join the images. DataError if it is neither, or
    lacks a column."""
    suffix = manifest.suffix.lower()
    columns = ("path", "label", "split", *([group] if group else []))
    if suffix in (".csv", ".tsv"):
        return _open_csv(manifest, columns, request)
    if suffix in (".parquet", ".pq"):
        return _open_parquet(manifest, columns, request)
    if suffix in LIST_SUFFIXES:
        with open_text(manifest) as (_, head):
            if find_dialect(head, [column for column in columns if column != "label"], needs_names=True):
                return _open_csv(manifest, columns, request)
        if group is None and not request:
            return ManifestRows(_read_list_rows(manifest))
        column = group or list_few(request.names) or "besides"
        raise DataError(f"{manifest} is a list of paths and labels, and has no column {column}: write it as CSV")
    raise DataError(
        f"{manifest} is not a folder, archive (.zip, .tar), manifest (.csv, .tsv, .parquet) or list (.txt, .lst): "
        "give one of these"
    )


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
            elif match := PATH_AND_LABEL.fullmatch(values[0]):
                path, label = match.groups()
            else:
                path, _, label = values[0].rpartition(" ")
            if not path:
                raise DataError(f"{where} must have a path and a label, separated by a blank")
            yield f"line {number}", {"path": path.strip(), "label": label}


def _open_csv(manifest: Path | RemotePath, columns: Sequence[str], request: ColumnRequest) -> ManifestRows:
    is_tsv = manifest.suffix.lower() == ".tsv"
    others = [column for column in columns if column != "label"]
    with open_text(manifest) as (_, head):
        dialect = find_dialect(head, columns, is_tsv=is_tsv, needs_names=True)
        has_label = dialect is not None or find_dialect(head, columns, is_tsv=is_tsv) is not None
        dialect = dialect or find_dialect(head, others, is_tsv=is_tsv, needs_names=True)
    if dialect is None:
        if request and has_label:
            raise DataError(f"{manifest} does not name its columns: add a first line, such as path,label,weight")
        return ManifestRows(read_csv_rows(manifest, columns))
    reserved = [dialect.names[position] for position in dialect.columns.values()]
    read = functools.partial(read_csv_rows, manifest)
    if not has_label:
        named = [name for name in dialect.names if name and name not in reserved]
        found = _read_class_columns(manifest, others, named, read, request)
        return found or ManifestRows(read_csv_rows(manifest, columns))
    return _join_columns(manifest, dialect.names, columns, reserved, read, request)


def _join_columns(
    manifest: Path | RemotePath,
    have: Sequence[str],
    wanted: Sequence[str],
    reserved: Sequence[str],
    read: Callable[[Sequence[str]], Iterator[Row]],
    request: ColumnRequest,
) -> ManifestRows:
    """Return the rows of a table that has a column of labels. have: its columns. reserved: those that join no image."""
    group = next((column for column in wanted if column not in ("path", "label", "split")), None)
    joined = request.choose(str(manifest), have, [name for name in reserved if name != group], group)
    findings = [] if request else describe_unused(str(manifest), list_free(have, reserved))
    rows = read([*dict.fromkeys([*wanted, *joined])])
    return ManifestRows(rows, findings=tuple(findings), columns=tuple(joined))


def _open_parquet(manifest: Path | RemotePath, columns: Sequence[str], request: ColumnRequest) -> ManifestRows:
    from classifier.data.readers.parquet import (
        find_label_column,
        list_flag_columns,
        list_single_valued,
        open_table,
        read_class_names,
        read_columns,
    )

    table = open_table(manifest)
    have, label = table.schema.names, find_label_column(table.schema, LABEL_COLUMNS)
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
        if (found := _read_class_columns(manifest, others, named, read, request)) is not None:
            return found
        missing = ["label"]
    if missing:
        raise DataError(
            f"{manifest}: there is no column {missing[0]} (only {', '.join(have) or 'none'}): rename or add it"
        )
    single = list_single_valued(table.schema, request.names)
    rows = _join_columns(manifest, single, ["label", *others], [*others, str(label)], read, request)
    return dataclasses.replace(rows, class_names=tuple(class_names or ()))


def _read_class_columns(
    manifest: Path | RemotePath,
    others: Sequence[str],
    named: Sequence[str],
    read: Callable[[Sequence[str]], Iterator[Row]],
    request: ColumnRequest,
) -> ManifestRows | None:
    """Return rows whose labels are the names of their columns of 0 and 1; None if there are no such columns."""
    candidates = [name for name in named if name not in request.names]
    found = class_columns.find_class_columns(str(manifest), candidates, read(candidates)) if candidates else None
    if found is None:
        return None
    joined = request.choose(str(manifest), named, found.names)

    def read_rows() -> Iterator[Row]:
        for where, row in read([*others, *found.names, *joined]):
            yield where, row | {"label": class_columns.read_flags(f"{manifest} {where}", found.names, row)}

    return ManifestRows(read_rows(), class_columns.HOW, tuple(found.findings), columns=tuple(joined))
