"""A manifest: a CSV or Parquet table with the columns path and label, and optionally split.

Or a list: lines of a path and its label, as in Caffe and ImageNet's kits (.txt), or MXNet's tab-separated lines of a
number, a label and a path (.lst).
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from classifier.data.columns.request import ColumnRequest, read_cells
from classifier.data.labels.class_names import clean_label
from classifier.data.labels.repeated_rows import RepeatedRows
from classifier.data.labels.values import parse_group, parse_labels
from classifier.data.readers.archive import normalize_member_name
from classifier.data.readers.manifests.image_folder import ImageFolder
from classifier.data.readers.manifests.rows import LIST_SUFFIXES, open_rows
from classifier.data.readers.remote import RemotePath
from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.split_names import SPLIT_ALIASES, parse_split
from classifier.errors import DataError


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
