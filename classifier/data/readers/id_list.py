"""Select images of any data set, including archives, tables and shards, by a list of their ids."""

import dataclasses
from pathlib import Path

import numpy as np

from classifier.data.labels.encode import name_labels, number_labels
from classifier.data.labels.label_sets import describe_label_sets
from classifier.data.labels.values import Spelling, parse_label
from classifier.data.readers.compact import CompactFiles, select_strings
from classifier.data.readers.csv_rows import read_csv_rows
from classifier.data.readers.source import Source
from classifier.data.split_names import parse_split
from classifier.errors import DataError, list_few
from classifier.text import unescape_surrogates


def select_listed(source: Source, path: Path, task: str = "auto") -> Source:
    """Select the images that a CSV lists (id, label, split), with the labels and splits given there.

    task: as data.task; what the labels of a multilabel source are replaced by are lists, too.

    An empty split is drawn; rows without a label are left out, with a finding.

    DataError names the line of an unknown or repeated id, or of an unknown split.
    """
    if not path.is_file():
        fault = "is no ordinary file" if path.exists() else "does not exist"
        raise DataError(f"data.only {path} {fault}: give a CSV of id,label,split, as written by audit --write-manifest")
    index_of = {id_: n for n, id_ in enumerate(source.ids)}
    selected: dict[int, tuple[Spelling, int]] = {}
    unlabelled: list[str] = []
    for where, row in read_csv_rows(path, ("id", "label", "split")):
        line = f"{path} {where}"
        index = index_of.get(row["id"], index_of.get(unescape_surrogates(row["id"])))
        if index is None:
            raise DataError(
                f"{line}: {source.name} has no image {row['id']!r}: remove the line, or set --data.only none if it "
                "belongs to another data set"
            )
        if index in selected:
            raise DataError(f"{line}: {row['id']!r} is listed already: keep one of the two")
        label, split = parse_label(line, row["label"]), parse_split(line, row.get("split"))
        if label is None:
            unlabelled.append(source.ids[index])
        else:
            selected[index] = label, split
    if not selected:
        raise DataError(f"{path} lists no images: add a line id,label,split for each")
    indices = sorted(selected)
    first_of = {label: n for n, (label, _) in reversed(selected.items())}
    numbers = {label: number for number, label in enumerate(first_of)}
    spelled_N = np.array([numbers[selected[n][0]] for n in indices], np.int64)
    named = name_labels(
        str(path),
        [*first_of],
        np.bincount(spelled_N, minlength=len(first_of)),
        task="multilabel" if task == "auto" and source.label_sets is not None else task,
        trusted=source.class_names,
        locate=lambda label: source.ids[first_of[label]],
    )
    if named.refusals:
        raise DataError(named.refusals[0])
    numbered, findings = number_labels(named, range(len(first_of))), named.findings
    labels_N = numbered.labels_S[spelled_N]
    if numbered.label_sets is not None:
        findings.append(describe_label_sets(labels_N, numbered.class_names, numbered.label_sets, named.how))
    if unlabelled:
        findings.append(f"{len(unlabelled):,} images have no label and were left out: {list_few(unlabelled)}.")
    images = source.images
    return dataclasses.replace(
        source,
        class_names=numbered.class_names,
        ids=select_strings(source.ids, indices),
        labels_N=labels_N,
        splits_N=np.array([selected[n][1] for n in indices], np.int8),
        images=images[indices] if isinstance(images, np.ndarray) else CompactFiles(images[n] for n in indices),
        groups=None if source.groups is None else select_strings(source.groups, indices),
        findings=(
            *source.findings,
            *findings,
            f"{len(indices):,} of its {len(index_of):,} images are used (data.only).",
        ),
        label_sets=numbered.label_sets,
        columns=source.select_columns(indices),
    )
