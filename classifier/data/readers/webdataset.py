"""Tar shards as WebDataset writes them: files of one name up to its first dot are one sample, `7.jpg` and `7.cls`.

Format: github.com/webdataset/webdataset. The label is the text of KEY.cls, or in KEY.json what stands under label, cls
or class. Shards are train, validation or test by their own name or their folder's (train-0000.tar, test/0.tar).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.readers.archive import Member, list_tar_members
from classifier.data.readers.remote import Remote, named_from
from classifier.data.readers.source import SourceBuilder, Source, reject_ambiguous_labels
from classifier.data.readers.tree import is_hidden
from classifier.data.split_names import DRAWN, WORDS
from classifier.errors import DataError, list_few

LABELS = ("cls", "json")
KEYS = ("label", "cls", "class")
NAMES = ("classes.txt", "classnames.txt", "labels.txt")
"""Files beside the shards that name the classes, a line each, where labels are numbers."""
LARGEST_LABEL = 1 << 20
_WORD = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")


@dataclass
class _Sample:
    pictures: list[Member] = field(default_factory=list)
    labels: dict[str, Member] = field(default_factory=dict)


def are_samples(members: Iterable[Member]) -> bool:
    """Are there pictures with a label of the same key beside them?"""
    return any(sample.pictures and sample.labels for sample in _samples(members).values())


def read(paths: Sequence[Path] | Sequence[Remote]) -> Source:
    """The labelled pictures of these shards; samples without a picture or a label are told of and left out.

    DataError if a shard is damaged, or there is no sample.
    """
    home, names = named_from(paths)
    found, without, doubled, wrong = SourceBuilder(), [], [], []
    for path, shard in zip(paths, names, strict=True):
        split = split_of(shard)
        for key, sample in _samples(list_tar_members(path)).items():
            id_ = f"{shard}/{key}"
            if not sample.pictures or not sample.labels:
                without.append(id_)
                continue
            label = _label(sample)
            if label is None:
                wrong.append(id_)
                continue
            if len(sample.pictures) > 1:
                doubled.append(id_)
            found.add(f"{shard}/{sample.pictures[0].name}", sample.pictures[0], label, split)
    if not found:
        raise DataError(f"{paths[0]}: there is no picture with a label (KEY.jpg with KEY.cls): nothing to learn from")
    found.rename_classes(_names(found.class_indices, home))
    reject_ambiguous_labels(str(home), found.class_indices)
    findings = [
        f"{len(ids)} samples {what}: {list_few(ids)}."
        for ids, what in (
            (without, "lack a picture or a label and were left out"),
            (wrong, "have a label that cannot be read and were left out"),
            (doubled, "have several pictures, of which the first is taken"),
        )
        if ids
    ]
    name = re.sub(r"[-_.]?\d*$", "", paths[0].stem) if len(paths) == 1 else home.name
    return found.build(name or paths[0].stem, findings=tuple(findings))


def split_of(name: str) -> int:
    """The split that a file's name or its folders' say it belongs to, or DRAWN."""
    words = [word for part in reversed(name.lower().split("/")) for word in _WORD.findall(part)]
    return WORDS[words[0]] if words else DRAWN


def _samples(members: Iterable[Member]) -> dict[str, _Sample]:
    found: dict[str, _Sample] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        ending = ending.lower()
        is_picture = "." + ending.rpartition(".")[2] in SUFFIXES
        if is_hidden(name) or not (is_picture or ending in LABELS):
            continue
        sample = found.setdefault(f"{folder}/{stem}".lstrip("/"), _Sample())
        if is_picture:
            sample.pictures.append(member)
        else:
            sample.labels.setdefault(ending, member)
    return found


def _label(sample: _Sample) -> str | None:
    """The sample's label; None if it has none that can be read."""
    for ending in LABELS:
        member = sample.labels.get(ending)
        if member is None or member.size > LARGEST_LABEL:
            continue
        try:
            text = member.read_bytes().decode("utf-8").strip()
            value: Any = text if ending == "cls" else _from_json(json.loads(text))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


def _from_json(document: Any) -> Any:
    if isinstance(document, dict):
        return next((document[key] for key in KEYS if key in document), None)
    return document


def _names(labels: Iterable[str], home: Path | Remote) -> dict[str, str]:
    """Class names in place of numbers, where a file beside the shards has them; else nothing."""
    if all(label.isdecimal() for label in labels):
        for path in (home / name for name in NAMES):
            if path.is_file():
                names = path.read_text(encoding="utf-8").splitlines()
                highest = max(map(int, labels))
                if highest >= len(names):
                    raise DataError(
                        f"{path} names {len(names)} classes, the shards have a class {highest}: add its name"
                    )
                return {label: names[int(label)] for label in labels}
    return {}
