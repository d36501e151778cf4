"""What a reader of folders, files or tables found, before anything is decoded or split."""

import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from classifier.data.readers.compact import Files, Names
from classifier.data.readers.tree import File
from classifier.data.split_names import SPLITS, ImageKind
from classifier.errors import DataError

_NUMBER_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """N pictures with labels. labels_N: int64 in [0, K); splits_N: int8, an index of SPLITS or DRAWN.

    pictures: N files, or a uint8 array N x C x H x W. groups: N names; what shares one is never split.
    """

    name: str
    class_names: tuple[str, ...]
    ids: Sequence[str]
    labels_N: np.ndarray
    splits_N: np.ndarray
    images: "Sequence[File] | np.ndarray"
    groups: Sequence[str] | None = None
    kind: ImageKind | None = None
    findings: tuple[str, ...] = ()


@dataclass(eq=False)
class Collected:
    """Pictures as they are found, one by one, for a source of files."""

    ids: Names = field(default_factory=Names)
    files: Files = field(default_factory=Files)
    labels: array = field(default_factory=lambda: array("q"))
    splits: array = field(default_factory=lambda: array("b"))
    numbers: dict[str, int] = field(default_factory=dict)
    """Of the classes, by their names, in the order in which they were met."""

    def add(self, id_: str, file: File, class_name: str, split: int) -> None:
        self.ids.add(id_)
        self.files.add(file)
        self.labels.append(self.numbers.setdefault(class_name, len(self.numbers)))
        self.splits.append(split)

    def __len__(self) -> int:
        return len(self.ids)

    def rename(self, names: dict[str, str]) -> None:
        """Other names for classes, where `names` has them; those that get one name become one class."""
        numbers: dict[str, int] = {}
        places = [numbers.setdefault(names.get(old, old), len(numbers)) for old in self.numbers]
        self.labels = array("q", (places[label] for label in self.labels))
        self.numbers = numbers

    def source(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        kind: ImageKind | None = None,
        findings: tuple[str, ...] = (),
    ) -> Source:
        class_names = ordered(self.numbers)
        places = np.empty(len(class_names), np.int64)
        for k, class_name in enumerate(class_names):
            places[self.numbers[class_name]] = k
        return Source(
            name=name,
            class_names=class_names,
            ids=self.ids,
            labels_N=places[np.array(self.labels, np.int64)],
            splits_N=np.array(self.splits, np.int8),
            images=self.files,
            groups=groups,
            kind=kind,
            findings=findings,
        )


def from_files(
    name: str,
    rows: Iterable[tuple[str, File, str, int]],
    *,
    groups: Sequence[str] | None = None,
    kind: ImageKind | None = None,
) -> Source:
    """A source of image files, from rows of (id, file, class name, split)."""
    collected = Collected()
    for row in rows:
        collected.add(*row)
    return collected.source(name, groups=groups, kind=kind)


def from_arrays(
    name: str,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    class_names: tuple[str, ...],
    *,
    kind: ImageKind,
) -> Source:
    """A source of pictures in memory: by split, uint8 N x C x H x W and whole numbers, indices of class_names.

    Classes without a picture are left out. DataError if a label names no class.
    """
    shapes = {images.shape[1:] for images, _ in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"{name} holds splits of different shapes ({sorted(shapes)}): bring them to one")
    numbers_N = np.concatenate([numbers for _, numbers in parts.values()]).astype(np.int64)
    present, labels_N = np.unique(numbers_N, return_inverse=True)
    if len(present) and not 0 <= present[0] <= present[-1] < len(class_names):
        wrong = present[0] if present[0] < 0 else present[-1]
        raise DataError(f"{name} holds the label {wrong}, but has {len(class_names)} classes: its labels are damaged")
    findings = ()
    if len(present) < len(class_names):
        findings = (f"{name} holds {len(present)} of its {len(class_names)} classes here.",)
    return Source(
        name=name,
        class_names=tuple(class_names[number] for number in present.tolist()),
        ids=[f"{split}/{n}" for split, (images, _) in parts.items() for n in range(len(images))],
        labels_N=labels_N.astype(np.int64),
        splits_N=np.repeat(
            np.array([SPLITS.index(split) for split in parts], np.int8), [len(images) for images, _ in parts.values()]
        ),
        images=np.concatenate([images for images, _ in parts.values()]),
        kind=kind,
        findings=findings,
    )


def ordered(class_names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers, where all are numbers, else of the alphabet."""
    names = sorted(class_names)
    if all(name.isascii() and name.isdecimal() for name in names):
        names.sort(key=int)
    return tuple(names)


def refuse_lookalikes(name: str, labels: Iterable[str], *, what: str = "labels") -> None:
    """DataError names two labels that differ only by case, blanks or how Unicode spells the same letters."""
    seen: dict[str, str] = {}
    for label in sorted(set(labels)):
        key = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        if not key:
            raise DataError(f"{name}: the label {label!r} is blank: give every image the name of its class")
        if key in seen:
            raise DataError(
                f"{name}: the {what} {seen[key]!r} and {label!r} differ only by case or blanks: "
                "rename one if they are one class, or make the names clearly different"
            )
        seen[key] = label


def kind_of(class_names: Sequence[str]) -> ImageKind:
    """symbols if every class is named by a single sign or a number word, else photos."""
    named = (len(name) == 1 or name.casefold() in _NUMBER_WORDS for name in class_names)
    return "symbols" if all(named) else "photos"
