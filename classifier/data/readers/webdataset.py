"""WebDataset tar shards: files whose names agree up to the first dot are one sample, such as `7.jpg` and `7.cls`.

Format: github.com/webdataset/webdataset. Keys with dots are understood, too: `22.05.jpg` and `22.05.cls` are a sample.
The label is the text of KEY.cls, or the value of label, labels, cls or class in KEY.json, which may be a list. A
shard's split comes from its own name or its folder's (train-0000.tar, test/0.tar).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.data.columns.request import ColumnRequest, describe_unused, list_free, read_cells
from classifier.data.decoding.decode import SUFFIXES
from classifier.data.labels.class_names import describe_repeated
from classifier.data.labels.values import decode_text, parse_labels
from classifier.data.readers.archive import Member, list_tar_members
from classifier.data.readers.csv_rows import open_text
from classifier.data.readers.remote import RemotePath, split_common_folder
from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.readers.tree import is_hidden, leads_outside
from classifier.data.split_names import infer_splits
from classifier.errors import DataError, list_few

LABEL_SUFFIXES = ("cls", "json")
JSON_KEYS = ("label", "labels", "cls", "class")
CLASS_NAME_FILES = ("classes.txt", "classnames.txt", "labels.txt")
"""Files beside the shards with one class name per line, for numeric labels."""
MAX_KEYS = 10_000
MAX_LABEL_BYTES, MAX_NAMES_CHARACTERS = 1 << 20, 1 << 24
_KNOWN = {*LABEL_SUFFIXES, *(suffix.removeprefix(".") for suffix in SUFFIXES)}


@dataclass
class _Sample:
    images: list[Member] = field(default_factory=list)
    labels: dict[str, Member] = field(default_factory=dict)


def contains_samples(members: Iterable[Member]) -> bool:
    """Return whether any image has a label with the same key."""
    return any(sample.images and sample.labels for sample in _group_samples(members).values())


def read_webdataset(
    paths: Sequence[Path] | Sequence[RemotePath], task: str = "auto", request: ColumnRequest | None = None
) -> Source:
    """Find the labelled images in these shards; samples without an image or a label are left out, with a finding.

    task: data.task. request: the keys of JSON that join the images as columns; if None, none. DataError if a shard is
    corrupted, or there is no sample.
    """
    folder, names = split_common_folder(paths)
    builder, incomplete, ambiguous, unreadable = SourceBuilder(), [], [], []
    names_file, class_names = _read_class_names(folder)
    columns = _JsonColumns(request or ColumnRequest())
    for path, shard, split in zip(paths, names, infer_splits(names), strict=True):
        for key, sample in _group_samples(list_tar_members(path)).items():
            id_ = f"{shard}/{key}"
            if not sample.images or not sample.labels:
                incomplete.append(id_)
                continue
            try:
                value, document = _read_label(path, sample, reads_all=bool(request))
            except (OSError, ValueError, RecursionError):
                unreadable.append(id_)
                continue
            if len(sample.images) > 1:
                ambiguous.append(id_)
            where = f"{path}: {key}"
            if class_names is not None and isinstance(value, str) and value.isdecimal():
                value, where = int(value), f"{where}, named by {names_file}"
            label = parse_labels(where, value, class_names)
            cells = columns.read(where, document)
            builder.add(f"{shard}/{sample.images[0].name}", sample.images[0], label, split, cells=cells)
    if not builder:
        raise DataError(f"{paths[0]}: there is no image with a label (KEY.jpg with KEY.cls): add labels")
    columns.check(str(folder))
    for key in columns.several & builder.columns.keys():
        del builder.columns[key]
    findings = [*describe_repeated(names_file, class_names or ()), *columns.describe(str(folder))]
    findings += [
        f"{len(ids)} samples {what}: {list_few(ids)}."
        for ids, what in (
            (incomplete, "lack an image or a label and were left out"),
            (unreadable, "have an unreadable label and were left out"),
            (ambiguous, "have several images, of which the first is used"),
        )
        if ids
    ]
    name = re.sub(r"[-_.]?\d*$", "", paths[0].stem) if len(paths) == 1 else folder.name
    return builder.build(
        name or paths[0].stem, task=task, where=str(folder), trusted=class_names or (), findings=tuple(findings)
    )


def _group_samples(members: Iterable[Member]) -> dict[str, _Sample]:
    """Group a shard's images and labels by their keys.

    A key ends at the first dot of a name, unless an image and a label agree up to their last one: then it ends there,
    for all names that begin with it (7.seg.png belongs to 7.jpg and 7.cls).
    """
    known = [member for member in members if not is_hidden(member.name) and _ending(member.name) in _KNOWN]
    labelled = {_cut(member.name) for member in known if _ending(member.name) in LABEL_SUFFIXES}
    pairs = {_cut(member.name) for member in known if _ending(member.name) not in LABEL_SUFFIXES} & labelled
    have_dots = any("." in key.rpartition("/")[2] for key in pairs)
    samples: dict[str, _Sample] = {}
    for member in known:
        keys = list(_possible_keys(member.name))
        key = next((key for key in keys if key in pairs), keys[0] if have_dots else keys[-1])
        is_exact, ending = key == keys[0], _ending(member.name)
        if ending not in LABEL_SUFFIXES:
            images = samples.setdefault(key, _Sample()).images
            images.insert(0 if is_exact and images and _cut(images[0].name) != key else len(images), member)
        elif is_exact:
            samples.setdefault(key, _Sample()).labels.setdefault(ending, member)
    return samples


def _ending(name: str) -> str:
    base = name.rpartition("/")[2]
    return base.rpartition(".")[2].lower() if "." in base else ""


def _cut(name: str) -> str:
    return name.rpartition(".")[0]


def _possible_keys(name: str) -> Iterable[str]:
    """Yield the name up to each of its dots, the last one first."""
    folder, slash, base = name.rpartition("/")
    while "." in base:
        base = _cut(base)
        yield folder + slash + base


class _JsonColumns:
    """The keys of samples' JSON that join the images."""

    def __init__(self, request: ColumnRequest) -> None:
        self._request = request
        self._seen: dict[str, None] = {}
        self.several: set[str] = set()
        """Keys that nobody named, whose value is a list or an object in some sample: they are no columns."""

    def read(self, where: str, document: Any) -> dict[str, str]:
        """Return the cells of a sample. DataError if a column that is named has a list, or there are too many."""
        if not isinstance(document, dict):
            return {}
        self._seen.update(dict.fromkeys(document))
        if len(self._seen) > MAX_KEYS:
            raise DataError(f"{where}: its JSON and that before has more than {MAX_KEYS:,} different keys: use fewer")
        self.several |= {
            key for key, value in document.items() if isinstance(value, dict | list) and key not in self._request.names
        }
        have = [key for key in document if key not in self.several]
        names = self._request.names
        chosen = [key for key in have if key in names]
        if self._request.takes_all:
            chosen += [key for key in list_free(have, JSON_KEYS) if key not in names]
        return read_cells(where, chosen, document)

    def check(self, where: str) -> None:
        """Raise a DataError if a column that is named is in no sample, or is a label."""
        self._request.choose(where, [*self._seen], JSON_KEYS)

    def describe(self, where: str) -> list[str]:
        if self._request:
            return []
        return describe_unused(where, list_free(sorted(self._seen.keys() - self.several), JSON_KEYS))


def _read_label(path: Path | RemotePath, sample: _Sample, *, reads_all: bool) -> tuple[Any, Any]:
    """Return the value of the sample's label, and its JSON, if that was read; reads_all: even beside a .cls.

    ValueError, OSError or RecursionError if it is unreadable.
    """
    reason: Exception = ValueError("it is too large")
    label, document = None, None
    for ending in LABEL_SUFFIXES:
        member = sample.labels.get(ending)
        if member is None or member.size > MAX_LABEL_BYTES:
            continue
        try:
            text = decode_text(f"{path}: {member.name}", member.read_bytes()).strip()
            if ending == "cls":
                label = text
                if not reads_all:
                    return label, None
                continue
            document = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            reason = error
            continue
        if label is None and isinstance(document, dict):
            return next((document[key] for key in JSON_KEYS if key in document), None), document
        return (document if label is None else label), document
    if label is None:
        raise reason
    return label, document


def _read_class_names(folder: Path | RemotePath) -> tuple[str, list[str] | None]:
    """Return the file beside the shards that names their numeric labels, and the names; None if there is none."""
    for path in (folder / name for name in CLASS_NAME_FILES):
        if path.is_file():
            if isinstance(path, Path) and isinstance(folder, Path) and leads_outside(path, folder):
                raise DataError(f"{path} is a link that leads out of {folder}: replace it by the file")
            with open_text(path) as (file, _):
                text = file.read(MAX_NAMES_CHARACTERS)
            return str(path), [line.strip() for line in text.rstrip().splitlines()]
    return "", None
