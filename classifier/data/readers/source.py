"""What a reader returns, before anything is decoded or split."""

import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from classifier.data.readers.compact import CompactFiles, CompactStrings
from classifier.data.readers.tree import File
from classifier.data.split_names import SPLITS, ImageKind
from classifier.errors import DataError

_NUMBER_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """N labelled images. labels_N: int64 in [0, K); splits_N: int8, an index of SPLITS or UNASSIGNED.

    images: N files, or a uint8 array N x C x H x W. groups: N names; images that share one stay in one split.
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
class SourceBuilder:
    """Collects images one by one, for a source of files."""

    ids: CompactStrings = field(default_factory=CompactStrings)
    files: CompactFiles = field(default_factory=CompactFiles)
    labels: array = field(default_factory=lambda: array("q"))
    splits: array = field(default_factory=lambda: array("b"))
    class_indices: dict[str, int] = field(default_factory=dict)
    """Class name -> class index, in order of appearance."""

    def add(self, id_: str, file: File, class_name: str, split: int) -> None:
        self.ids.add(id_)
        self.files.add(file)
        self.labels.append(self.class_indices.setdefault(class_name, len(self.class_indices)))
        self.splits.append(split)

    def __len__(self) -> int:
        return len(self.ids)

    def rename_classes(self, names: dict[str, str]) -> None:
        """Rename the classes that are keys of `names`; classes that get the same name are merged."""
        renamed: dict[str, int] = {}
        new_labels = [renamed.setdefault(names.get(old, old), len(renamed)) for old in self.class_indices]
        self.labels = array("q", (new_labels[label] for label in self.labels))
        self.class_indices = renamed

    def build(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        kind: ImageKind | None = None,
        findings: tuple[str, ...] = (),
    ) -> Source:
        class_names = sort_class_names(self.class_indices)
        sorted_K = np.empty(len(class_names), np.int64)
        for k, class_name in enumerate(class_names):
            sorted_K[self.class_indices[class_name]] = k
        return Source(
            name=name,
            class_names=class_names,
            ids=self.ids,
            labels_N=sorted_K[np.array(self.labels, np.int64)],
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
    """Create a source of image files from rows of (id, file, class name, split)."""
    collected = SourceBuilder()
    for row in rows:
        collected.add(*row)
    return collected.build(name, groups=groups, kind=kind)


def from_arrays(
    name: str,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    class_names: tuple[str, ...],
    *,
    kind: ImageKind,
) -> Source:
    """Create a source of images in memory. parts: for each split, uint8 N x C x H x W and indices into class_names.

    Classes without an image are left out. DataError if a label is out of range.
    """
    shapes = {images.shape[1:] for images, _ in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"{name} has splits with images of different shapes ({sorted(shapes)}): make them all the same")
    numbers_N = np.concatenate([numbers for _, numbers in parts.values()]).astype(np.int64)
    present, labels_N = np.unique(numbers_N, return_inverse=True)
    if len(present) and not 0 <= present[0] <= present[-1] < len(class_names):
        wrong = present[0] if present[0] < 0 else present[-1]
        raise DataError(f"{name} has a label {wrong}, but only {len(class_names)} classes: its labels are corrupted")
    findings = ()
    if len(present) < len(class_names):
        findings = (f"{name} has images of only {len(present)} of its {len(class_names)} classes.",)
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


def sort_class_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names: by value if all are numbers, else alphabetically."""
    names = sorted(class_names)
    if all(name.isascii() and name.isdecimal() for name in names):
        names.sort(key=int)
    return tuple(names)


def reject_ambiguous_labels(name: str, labels: Iterable[str], *, what: str = "labels") -> None:
    """Raise a DataError if two labels differ only by case, blanks or the Unicode encoding of the same letters."""
    label_of: dict[str, str] = {}
    for label in sorted(set(labels)):
        key = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        if not key:
            raise DataError(f"{name}: the label {label!r} is blank: give each image the name of its class")
        if key in label_of:
            raise DataError(
                f"{name}: the {what} {label_of[key]!r} and {label!r} differ only by case or blanks: "
                "use one name if they are one class, or make the names clearly different"
            )
        label_of[key] = label


def guess_image_kind(class_names: Sequence[str]) -> ImageKind:
    """Return "symbols" if each class name is a single character or a number word, else "photos"."""
    named = (len(name) == 1 or name.casefold() in _NUMBER_WORDS for name in class_names)
    return "symbols" if all(named) else "photos"
