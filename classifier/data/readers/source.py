"""What a reader returns, before anything is decoded or split."""

import dataclasses
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from classifier.config.sections import Task
from classifier.data.labels.encode import name_labels, number_labels
from classifier.data.labels.label_sets import LabelSets, describe_label_sets, encode_label_sets
from classifier.data.labels.values import Spelling
from classifier.data.readers.compact import CompactFiles, CompactStrings, select_strings
from classifier.data.readers.file_bytes import File
from classifier.data.split_names import SPLITS, ImageKind
from classifier.errors import DataError, list_few
from classifier.metrics.hierarchy import SEPARATOR

_NUMBER_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
_NO_CELLS: Mapping[str, str] = {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """N labelled images. labels_N: int64 in [0, K); splits_N: int8, an index of SPLITS or UNASSIGNED.

    label_sets: where images have any number of labels, the M different sets of them, each the sorted indices of its
    classes, perhaps none; labels_N then are indices of these. images: N files, or a uint8 array N x C x H x W. groups:
    N names; images that share one stay in one split. columns: by name, the N cells of a column that joins the images,
    as columns/cells.py writes them: "" where a value is missing.
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
    label_sets: LabelSets | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def select_columns(self, indices: Sequence[int]) -> Mapping[str, Sequence[str]]:
        """Return the cells of the images at these indices, by column."""
        return {name: select_strings(cells, indices) for name, cells in self.columns.items()}

    def encode_label_sets(self) -> np.ndarray | None:
        """Return label_sets_MK, bool, the same sets as a table; None where labels_N are classes."""
        return None if self.label_sets is None else encode_label_sets(self.label_sets, len(self.class_names))


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
    class_indices: dict[Spelling, int] = field(default_factory=dict)
    """Label or list of labels as it was spelled -> its index, in order of appearance."""
    first_ids: list[str] = field(default_factory=list)
    """The first image of each label."""
    groups: CompactStrings = field(default_factory=CompactStrings)
    unlabelled: CompactStrings = field(default_factory=CompactStrings)
    columns: dict[str, CompactStrings] = field(default_factory=dict)

    def add(
        self,
        id_: str,
        file: File,
        label: Spelling | None,
        split: int,
        group: str | None = None,
        cells: Mapping[str, str] = _NO_CELLS,
    ) -> None:
        """label: as values.parse_labels returns it. group: for all images, or for none. cells: by column, which an
        image may lack."""
        if label is None:
            self.unlabelled.add(id_)
            return
        self.ids.add(id_)
        self.files.add(file)
        self.labels.append(self._number(id_, label))
        self.splits.append(split)
        if group is not None:
            self.groups.add(group)
        if cells or self.columns:
            self._add_cells(cells)

    def _add_cells(self, cells: Mapping[str, str]) -> None:
        for name in cells:
            if name not in self.columns:
                self.columns[name] = CompactStrings([""] * (len(self.ids) - 1))
        for name, column in self.columns.items():
            column.add(cells.get(name, ""))

    def set_lists(self, lists: Mapping[int, Sequence[str]]) -> None:
        """Give these images, by their indices, several labels each; all others have a list of one."""
        self.class_indices = {
            (label,) if isinstance(label, str) else label: n for label, n in self.class_indices.items()
        }
        for index, labels in lists.items():
            self.labels[index] = self._number(self.ids[index], tuple(labels))

    def _number(self, id_: str, label: Spelling) -> int:
        if label not in self.class_indices:
            self.class_indices[label] = len(self.first_ids)
            self.first_ids.append(id_)
        return self.class_indices[label]

    def __len__(self) -> int:
        return len(self.ids)

    def build(
        self,
        name: str,
        *,
        task: str = "auto",
        where: str | None = None,
        trusted: Collection[Spelling] = (),
        what: str = "labels",
        how: str = "in lists",
        kind: ImageKind | None = None,
        findings: tuple[str, ...] = (),
        refusals: Sequence[str] = (),
    ) -> Source:
        """where: what messages name, if not the source's name. task, trusted, what, how, errors: as for name_labels.

        refusals: why a training must not use it. UntrainableError if there are any, or labels are ambiguous.
        """
        spellings = [*self.class_indices]
        labels_N, splits_N = np.array(self.labels, np.int64), np.array(self.splits, np.int8)
        named = name_labels(
            where or name,
            spellings,
            np.bincount(labels_N, minlength=len(spellings)),
            task=task,
            trusted=trusted,
            what=what,
            how=how,
            locate=lambda label: self.first_ids[self.class_indices[label]],
        )
        about_labels = [*named.findings]
        is_kept_N = np.ones(len(labels_N), bool)
        if not named.is_multilabel:
            classes = {label: class_name for label, (class_name,) in zip(spellings, named.classes, strict=True)}
            is_kept_N, about_hidden = _find_hidden(classes, self.class_indices, trusted, labels_N, splits_N)
            about_labels += about_hidden
        kept = np.flatnonzero(is_kept_N).tolist()
        is_whole = len(kept) == len(labels_N)
        numbered = number_labels(named, np.unique(labels_N[is_kept_N]).tolist())
        kept_labels_N = numbered.labels_S[labels_N[is_kept_N]]
        if self.unlabelled:
            fix = " (write [] for images that have none of the labels)" if named.is_multilabel else ""
            some = list_few(self.unlabelled)
            about_labels.append(f"{len(self.unlabelled):,} images have no label and were left out{fix}: {some}.")
        if numbered.label_sets is not None:
            about = describe_label_sets(kept_labels_N, numbered.class_names, numbered.label_sets, named.how)
            about_labels.append(about)
        source = Source(
            name=name,
            class_names=numbered.class_names,
            ids=self.ids if is_whole else select_strings(self.ids, kept),
            labels_N=kept_labels_N,
            splits_N=splits_N[is_kept_N],
            images=self.files if is_whole else CompactFiles(self.files[n] for n in kept),
            groups=select_strings(self.groups, kept) if self.groups else None,
            kind=kind,
            findings=(*findings, *about_labels),
            label_sets=numbered.label_sets,
            columns=self.columns if is_whole else {n: select_strings(c, kept) for n, c in self.columns.items()},
        )
        if reasons := [*refusals, *named.refusals]:
            raise UntrainableError.of_source(source, reasons)
        return source


def _find_hidden(
    class_of: Mapping[Spelling, str],
    class_indices: Mapping[Spelling, int],
    trusted: Collection[Spelling],
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


def to_label_sets(source: Source) -> Source:
    """Return the source of one class per image with sets of one label each; one that has label sets, unchanged."""
    if source.label_sets is not None:
        return source
    label_sets = tuple((k,) for k in range(len(source.class_names)))
    about = describe_label_sets(source.labels_N, source.class_names, label_sets, "")
    return dataclasses.replace(source, label_sets=label_sets, findings=(*source.findings, about))


def guess_image_kind(class_names: Sequence[str], task: Task = "multiclass") -> ImageKind:
    """Return "symbols" if each class name is a single character or a number word, else "photos"; grades are neither."""
    if task == "ordinal":
        return "photos"
    names = [name.rpartition(SEPARATOR)[2] if task == "nested" else name for name in class_names]
    named = (len(name) == 1 or name.casefold() in _NUMBER_WORDS for name in names)
    return "symbols" if all(named) else "photos"
