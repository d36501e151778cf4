"""Rows of a manifest: of a CSV or Parquet table with a column of labels, or one for each class; of a list."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.labels import class_columns
from classifier.data.labels.values import parse_labels
from classifier.data.readers.csv_rows import Row, find_dialect, open_text, read_csv_rows
from classifier.data.readers.remote import RemotePath
from classifier.errors import DataError

LIST_SUFFIXES = (".txt", ".lst")
LABEL_COLUMNS = ("label", "labels")
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


def open_rows(manifest: Path | RemotePath, group: str | None) -> ManifestRows:
    """Open a manifest or list. group: a column. DataError if it is neither, or lacks a column."""
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
            return ManifestRows(_read_list_rows(manifest))
        raise DataError(f"{manifest} is a list of paths and labels, and has no column {group}: write it as CSV")
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


def _open_csv(manifest: Path | RemotePath, columns: Sequence[str]) -> ManifestRows:
    with open_text(manifest) as (_, head):
        is_tsv = manifest.suffix.lower() == ".tsv"
        others = [column for column in columns if column != "label"]
        if find_dialect(head, columns, is_tsv=is_tsv) is None and (
            dialect := find_dialect(head, others, is_tsv=is_tsv, needs_names=True)
        ):
            named = [name for n, name in enumerate(dialect.names) if name and n not in dialect.columns.values()]
            return _read_class_columns(
                manifest, others, named, lambda wanted: read_csv_rows(manifest, wanted)
            ) or ManifestRows(read_csv_rows(manifest, columns))
    return ManifestRows(read_csv_rows(manifest, columns))


def _open_parquet(manifest: Path | RemotePath, columns: Sequence[str]) -> ManifestRows:
    from classifier.data.readers.parquet import (
        find_label_column,
        list_flag_columns,
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
        if (found := _read_class_columns(manifest, others, named, read)) is not None:
            return found
        missing = ["label"]
    if missing:
        raise DataError(
            f"{manifest}: there is no column {missing[0]} (only {', '.join(have) or 'none'}): rename or add it"
        )
    return ManifestRows(read(["label", *others]), class_names=tuple(class_names or ()))


def _read_class_columns(
    manifest: Path | RemotePath,
    others: Sequence[str],
    named: Sequence[str],
    read: Callable[[Sequence[str]], Iterator[Row]],
) -> ManifestRows | None:
    """Return rows whose labels are the names of their columns of 0 and 1; None if there are no such columns."""
    found = class_columns.find_class_columns(str(manifest), named, read(named))
    if found is None:
        return None

    def read_rows() -> Iterator[Row]:
        for where, row in read([*others, *found.names]):
            yield where, row | {"label": class_columns.read_flags(f"{manifest} {where}", found.names, row)}

    return ManifestRows(read_rows(), class_columns.HOW, tuple(found.findings))
