"""WebDataset tar shards: files whose names agree up to the first dot are one sample, such as `7.jpg` and `7.cls`.

Format: github.com/webdataset/webdataset. The label is the text of KEY.cls, or the value of label, cls or class in
KEY.json. A shard's split comes from its own name or its folder's (train-0000.tar, test/0.tar).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.readers.archive import Member, list_tar_members
from classifier.data.readers.remote import RemotePath, split_common_folder
from classifier.data.readers.source import Source, SourceBuilder, reject_ambiguous_labels
from classifier.data.readers.tree import is_hidden
from classifier.data.split_names import SPLIT_ALIASES, UNASSIGNED
from classifier.errors import DataError, list_few

LABEL_SUFFIXES = ("cls", "json")
JSON_KEYS = ("label", "cls", "class")
CLASS_NAME_FILES = ("classes.txt", "classnames.txt", "labels.txt")
"""Files beside the shards with one class name per line, for numeric labels."""
MAX_LABEL_BYTES = 1 << 20
_WORD = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")


@dataclass
class _Sample:
    images: list[Member] = field(default_factory=list)
    labels: dict[str, Member] = field(default_factory=dict)


def contains_samples(members: Iterable[Member]) -> bool:
    """Return whether any image has a label with the same key."""
    return any(sample.images and sample.labels for sample in _group_samples(members).values())


def read_webdataset(paths: Sequence[Path] | Sequence[RemotePath]) -> Source:
    """Find the labelled images in these shards; samples without an image or a label are left out, with a finding.

    DataError if a shard is corrupted, or there is no sample.
    """
    folder, names = split_common_folder(paths)
    builder, incomplete, ambiguous, unreadable = SourceBuilder(), [], [], []
    for path, shard in zip(paths, names, strict=True):
        split = infer_split(shard)
        for key, sample in _group_samples(list_tar_members(path)).items():
            id_ = f"{shard}/{key}"
            if not sample.images or not sample.labels:
                incomplete.append(id_)
                continue
            label = _read_label(sample)
            if label is None:
                unreadable.append(id_)
                continue
            if len(sample.images) > 1:
                ambiguous.append(id_)
            builder.add(f"{shard}/{sample.images[0].name}", sample.images[0], label, split)
    if not builder:
        raise DataError(f"{paths[0]}: there is no image with a label (KEY.jpg with KEY.cls): add labels")
    builder.rename_classes(_read_class_names(builder.class_indices, folder))
    reject_ambiguous_labels(str(folder), builder.class_indices)
    findings = [
        f"{len(ids)} samples {what}: {list_few(ids)}."
        for ids, what in (
            (incomplete, "lack an image or a label and were left out"),
            (unreadable, "have an unreadable label and were left out"),
            (ambiguous, "have several images, of which the first is used"),
        )
        if ids
    ]
    name = re.sub(r"[-_.]?\d*$", "", paths[0].stem) if len(paths) == 1 else folder.name
    return builder.build(name or paths[0].stem, findings=tuple(findings))


def infer_split(name: str) -> int:
    """Infer the split from a file's name or the names of its folders; UNASSIGNED if they name none."""
    words = [word for part in reversed(name.lower().split("/")) for word in _WORD.findall(part)]
    return SPLIT_ALIASES[words[0]] if words else UNASSIGNED


def _group_samples(members: Iterable[Member]) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        ending = ending.lower()
        is_image = "." + ending.rpartition(".")[2] in SUFFIXES
        if is_hidden(name) or not (is_image or ending in LABEL_SUFFIXES):
            continue
        sample = samples.setdefault(f"{folder}/{stem}".lstrip("/"), _Sample())
        if is_image:
            sample.images.append(member)
        else:
            sample.labels.setdefault(ending, member)
    return samples


def _read_label(sample: _Sample) -> str | None:
    """Return the sample's label; None if it has no readable one."""
    for ending in LABEL_SUFFIXES:
        member = sample.labels.get(ending)
        if member is None or member.size > MAX_LABEL_BYTES:
            continue
        try:
            text = member.read_bytes().decode("utf-8").strip()
            value: Any = text if ending == "cls" else _label_from_json(json.loads(text))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


def _label_from_json(document: Any) -> Any:
    if isinstance(document, dict):
        return next((document[key] for key in JSON_KEYS if key in document), None)
    return document


def _read_class_names(labels: Iterable[str], folder: Path | RemotePath) -> dict[str, str]:
    """Return class names for numeric labels, from a file beside the shards; empty if there is none."""
    if all(label.isdecimal() for label in labels):
        for path in (folder / name for name in CLASS_NAME_FILES):
            if path.is_file():
                names = path.read_text(encoding="utf-8").splitlines()
                highest = max(map(int, labels))
                if highest >= len(names):
                    raise DataError(
                        f"{path} has {len(names)} class names, but the shards have a class {highest}: add its name"
                    )
                return {label: names[int(label)] for label in labels}
    return {}
