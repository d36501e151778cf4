"""From the spellings of labels to numbers: of classes, or, where images have several labels, of sets of classes."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from classifier.data.labels.class_names import name_classes, sort_class_names
from classifier.data.labels.separators import split_labels
from classifier.data.labels.values import Spelling


class NamedLabels(NamedTuple):
    """classes: of each spelling, each once. how: how lists of labels are written. For the rest, see NamedClasses."""

    classes: list[tuple[str, ...]]
    is_multilabel: bool
    how: str
    findings: list[str]
    refusals: list[str]


class NumberedLabels(NamedTuple):
    """labels_S: of each spelling, int64, an index of class_names, or of label_sets; -1 for one that is not used."""

    class_names: tuple[str, ...]
    labels_S: np.ndarray
    label_sets: tuple[tuple[int, ...], ...] | None


def name_labels(
    name: str,
    spellings: Sequence[Spelling],
    images_S: np.ndarray,
    *,
    task: str = "auto",
    trusted: Collection[Spelling] = (),
    what: str = "labels",
    how: str = "in lists",
    locate: Callable[[Spelling], str] = repr,
) -> NamedLabels:
    """Name the classes of each spelling. Parameters and errors: as for `split_labels` and `name_classes`."""
    trusted = [one for one in trusted if isinstance(one, str)]
    split = split_labels(name, spellings, images_S, task=task, trusted=trusted, how=how, locate=locate)
    first: dict[str, Spelling] = {}
    for spelling, labels in zip(spellings, split.labels, strict=True):
        for label in labels:
            first.setdefault(label, spelling)
    named = name_classes(name, first, trusted=trusted, what=what, locate=lambda label: locate(first[label]))
    classes = [tuple(dict.fromkeys(named.class_of[label] for label in labels)) for labels in split.labels]
    return NamedLabels(classes, split.is_multilabel, split.how, named.findings, named.refusals)


def number_labels(named: NamedLabels, used: Collection[int]) -> NumberedLabels:
    """Number the classes, sorted, of the spellings whose indices are `used`; and their sets, where there are any."""
    class_names = sort_class_names({label for n in used for label in named.classes[n]})
    number_of = {class_name: k for k, class_name in enumerate(class_names)}
    sets = {n: tuple(sorted(number_of[label] for label in named.classes[n])) for n in used}
    labels_S = np.full(len(named.classes), -1, np.int64)
    if not named.is_multilabel:
        for n, (label,) in sets.items():
            labels_S[n] = label
        return NumberedLabels(class_names, labels_S, None)
    label_sets = tuple(sorted(set(sets.values())))
    index_of = {label_set: m for m, label_set in enumerate(label_sets)}
    for n, label_set in sets.items():
        labels_S[n] = index_of[label_set]
    return NumberedLabels(class_names, labels_S, label_sets)
