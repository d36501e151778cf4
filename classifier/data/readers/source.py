"""What a reader returns, before anything is decoded or split."""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from classifier.data.labels import name_classes, sort_class_names
from classifier.data.readers.compact import CompactFiles, CompactStrings, select_strings
from classifier.data.readers.file_bytes import File
from classifier.data.split_names import SPLITS, ImageKind
from classifier.errors import DataError, list_few

_NUMBER_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """N labelled images. labels_N: int64 in [0, K); splits_N: int8, an index of SPLITS or UNASSIGNED.

    label_sets: where images have any number of labels, the M different sets of them, each the sorted indices of its
    classes, perhaps none; labels_N then are indices of these. images: N files, or a uint8 array N x C x H x W. groups:
    N names; images that share one stay in one split.
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
    label_sets: tuple[tuple[int, ...], ...] | None = None


class UntrainableError(DataError):
    """What was read can be audited, but not trained on. reasons: sentences, the first of which is the message."""

    source: Source
    reasons: Sequence[str]

    @classmethod
    def of_source(cls, source: Source, reasons: Sequence[str]) -> "UntrainableError":
        error = cls(reasons[0])
        error.source, error.reasons = source, reasons
        return error

    def __reduce__(self) -> tuple[type[DataError], tuple[str]]:
        return DataError, (str(self),)  # the source stays in the process that read it


@dataclass(eq=False)
class SourceBuilder:
    """Collects images one by one, for a source of files. Images without a label are left out, and counted."""

    ids: CompactStrings = field(default_factory=CompactStrings)
    files: CompactFiles = field(default_factory=CompactFiles)
    labels: array = field(default_factory=lambda: array("q"))
    splits: array = field(default_factory=lambda: array("b"))
    class_indices: dict[str, int] = field(default_factory=dict)
    """Label as it was spelled -> its index, in order of appearance."""
    first_ids: list[str] = field(default_factory=list)
    """The first image of each label."""
    groups: CompactStrings = field(default_factory=CompactStrings)
    unlabelled: CompactStrings = field(default_factory=CompactStrings)

    def add(self, id_: str, file: File, label: str | None, split: int, group: str | None = None) -> None:
        """label: as labels.parse_label returns it. group: for all images, or for none."""
        if label is None:
            self.unlabelled.add(id_)
            return
        self.ids.add(id_)
        self.files.add(file)
        if label not in self.class_indices:
            self.class_indices[label] = len(self.first_ids)
            self.first_ids.append(id_)
        self.labels.append(self.class_indices[label])
        self.splits.append(split)
        if group is not None:
            self.groups.add(group)

    def __len__(self) -> int:
        return len(self.ids)

    def build(
        self,
        name: str,
        *,
        where: str | None = None,
        trusted: Collection[str] = (),
        what: str = "labels",
        kind: ImageKind | None = None,
        findings: tuple[str, ...] = (),
        refusals: Sequence[str] = (),
    ) -> Source:
        """where: what messages name, if not the source's name. trusted, what, and errors: as for name_classes.

        refusals: why a training must not use it. UntrainableError if there are any, or labels are ambiguous.
        """
        class_of, merged, ambiguous = name_classes(
            where or name,
            self.class_indices,
            trusted=trusted,
            what=what,
            locate=lambda label: self.first_ids[self.class_indices[label]],
        )
        labels_N, splits_N = np.array(self.labels, np.int64), np.array(self.splits, np.int8)
        is_kept_N, about_hidden = _find_hidden(class_of, self.class_indices, trusted, labels_N, splits_N)
        kept = np.flatnonzero(is_kept_N).tolist()
        is_whole = len(kept) == len(labels_N)
        left = {label: k for label, k in self.class_indices.items() if is_whole or (labels_N[is_kept_N] == k).any()}
        class_names = sort_class_names({class_of[label] for label in left})
        numbers = {class_name: k for k, class_name in enumerate(class_names)}
        class_of_label = np.array([numbers.get(class_of[label], -1) for label in self.class_indices], np.int64)
        if self.unlabelled:
            some = list_few(self.unlabelled)
            merged.append(f"{len(self.unlabelled):,} images have no label and were left out: {some}.")
        source = Source(
            name=name,
            class_names=class_names,
            ids=self.ids if is_whole else select_strings(self.ids, kept),
            labels_N=class_of_label[labels_N[is_kept_N]],
            splits_N=splits_N[is_kept_N],
            images=self.files if is_whole else CompactFiles(self.files[n] for n in kept),
            groups=select_strings(self.groups, kept) if self.groups else None,
            kind=kind,
            findings=(*findings, *merged, *about_hidden),
        )
        if reasons := [*refusals, *ambiguous]:
            raise UntrainableError.of_source(source, reasons)
        return source


def _find_hidden(
    class_of: Mapping[str, str],
    class_indices: Mapping[str, int],
    trusted: Collection[str],
    labels_N: np.ndarray,
    splits_N: np.ndarray,
) -> tuple[np.ndarray, list[str]]:
    """Return which images to keep, and what to say about the label -1.

    It is a class like any other (beside 1, say), unless it is all that a split has: then that split's labels are
    hidden, as in the test sets of competitions.
    """
    is_kept_N = np.ones(len(labels_N), bool)
    minus_one = [k for label, k in class_indices.items() if class_of[label] == "-1" and label not in trusted]
    is_minus_one_N = np.isin(labels_N, minus_one)
    if not is_minus_one_N.any() or is_minus_one_N.all():
        return is_kept_N, []
    for split in np.unique(splits_N[is_minus_one_N]).tolist():
        if is_minus_one_N[splits_N == split].all():
            is_kept_N[splits_N == split] = False
    count, hidden = int(is_minus_one_N.sum()), int((~is_kept_N).sum())
    findings = []
    if hidden:
        findings.append(f"{hidden:,} images have no label (-1, like all of their split) and were left out.")
    elif "0" in class_of.values():
        findings.append(
            f"-1 is the class of {count:,} images: leave their labels empty if it means that they have none."
        )
    return is_kept_N, findings


def from_files(name: str, rows: Iterable[tuple[str, File, str, int]], *, kind: ImageKind | None = None) -> Source:
    """Create a source of image files from rows of (id, file, class name, split)."""
    collected = SourceBuilder()
    for row in rows:
        collected.add(*row)
    return collected.build(name, trusted=collected.class_indices, kind=kind)


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


def guess_image_kind(class_names: Sequence[str]) -> ImageKind:
    """Return "symbols" if each class name is a single character or a number word, else "photos"."""
    named = (len(name) == 1 or name.casefold() in _NUMBER_WORDS for name in class_names)
    return "symbols" if all(named) else "photos"
