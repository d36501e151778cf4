"""A list of pictures by their ids: of any data set, archives, tables and shards too, those to go on with."""

import dataclasses
from pathlib import Path

import numpy as np

from classifier.data.readers.compact import Files, chosen
from classifier.data.readers.manifest import csv_rows, label_of, split_named
from classifier.data.readers.source import Source, ordered, refuse_lookalikes
from classifier.errors import DataError


def only(source: Source, path: Path) -> Source:
    """The source's pictures that a CSV names (id, label, split), with the labels and splits that stand there.

    A split that is left empty is drawn. DataError names the line of an unknown or repeated id, or of an unknown split.
    """
    if not path.is_file():
        raise DataError(f"data.only {path} does not exist: give a CSV of id,label,split, as jobs/audit.py writes it")
    places = {id_: n for n, id_ in enumerate(source.ids)}
    found: dict[int, tuple[str, int]] = {}
    for where, row in csv_rows(path, ",", ("id", "label", "split")):
        here = f"{path} {where}"
        place = places.get(str(row["id"]))
        if place is None:
            raise DataError(
                f"{here}: {source.name} holds no picture {row['id']!r}: remove the line, or set --data.only none where "
                "it belongs to another data set"
            )
        if place in found:
            raise DataError(f"{here}: {row['id']!r} is listed already: keep one of the two")
        found[place] = label_of(here, row["label"]), split_named(here, row.get("split"))
    if not found:
        raise DataError(f"{path} lists no pictures: add a line of id,label,split for each")
    refuse_lookalikes(str(path), (label for label, _ in found.values()))
    index = sorted(found)
    class_names = ordered({label for label, _ in found.values()})
    numbers = {name: k for k, name in enumerate(class_names)}
    pictures = source.images
    return dataclasses.replace(
        source,
        class_names=class_names,
        ids=chosen(source.ids, index),
        labels_N=np.array([numbers[found[n][0]] for n in index], np.int64),
        splits_N=np.array([found[n][1] for n in index], np.int8),
        pictures=pictures[index] if isinstance(pictures, np.ndarray) else Files(pictures[n] for n in index),
        groups=None if source.groups is None else chosen(source.groups, index),
        findings=(*source.findings, f"{len(index):,} of its {len(places):,} pictures are used (data.only)."),
    )
