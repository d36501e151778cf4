"""What several annotators agree on: the label that counts, how well they agree, and what is to be resolved.

An image's label is that of a resolution, or of all who answered, or else of more than half of them. Agreement is
Cohen's kappa of each two annotators on the images that both answered, and Fleiss' kappa of all on those that all
answered (J. L. Fleiss, "Measuring nominal scale agreement among many raters", 1971). Of several labels an image, they
are means over labels.
"""

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.label.answers import Answer

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Agreed:
    """The label of an image, and who gave it."""

    labels: Labels
    annotators: tuple[str, ...]


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance of some annotators: 1 is perfect, 0 is that of chance; None where it is undefined."""

    annotators: tuple[str, ...]
    images: int
    same: int
    """Images on which they agree."""
    value: float | None


def collect(answers: Mapping[str, Sequence[Answer]]) -> tuple[dict[str, dict[str, Labels]], dict[str, Agreed]]:
    """Return by image what each annotator said last, without skipped images; and the resolutions."""
    said: dict[str, dict[str, Labels]] = {}
    resolved: dict[str, Agreed] = {}
    for annotator, entries in answers.items():
        for one in entries:
            labels = None if one.labels is None else tuple(sorted(set(one.labels)))
            if one.is_resolution and labels is not None:
                resolved[one.image] = Agreed(labels, (annotator,))
            elif labels is not None:
                said.setdefault(one.image, {})[annotator] = labels
            elif not one.is_resolution:
                said.get(one.image, {}).pop(annotator, None)
    return {image: by for image, by in said.items() if by}, resolved


def agree(answers: Mapping[str, Sequence[Answer]]) -> tuple[dict[str, Agreed], dict[str, dict[str, Labels]]]:
    """Return the label of each image that has one, and what annotators said of those on which they disagree."""
    said, resolved = collect(answers)
    agreed: dict[str, Agreed] = {}
    open_: dict[str, dict[str, Labels]] = {}
    for image, by in said.items():
        (labels, votes), *_ = Counter(by.values()).most_common(1)
        if image in resolved:
            agreed[image] = resolved[image]
        elif 2 * votes > len(by):
            agreed[image] = Agreed(labels, tuple(name for name, own in by.items() if own == labels))
        else:
            open_[image] = by
    return agreed, open_


def measure_agreement(answers: Mapping[str, Sequence[Answer]], *, is_multilabel: bool = False) -> list[Kappa]:
    """Return the agreement of each two annotators, and of all if they are more; none where they share no image."""
    said, _ = collect(answers)
    names = sorted({name for by in said.values() for name in by})
    groups = [*itertools.combinations(names, 2)] + ([tuple(names)] if len(names) > 2 else [])
    found = []
    for group in groups:
        shared = [[by[name] for name in group] for by in said.values() if by.keys() >= {*group}]
        if shared:
            same = sum(len({*row}) == 1 for row in shared)
            found.append(Kappa(group, len(shared), same, _compute_kappa(shared, is_multilabel=is_multilabel)))
    return found


def _compute_kappa(rows: list[list[Labels]], *, is_multilabel: bool) -> float | None:
    """Return the kappa of rows of the answers to an image, by 2 or more annotators."""
    if is_multilabel:
        classes = sorted({label for row in rows for labels in row for label in labels})
        kappas = [_kappa_of([[str(one in labels) for labels in row] for row in rows]) for one in classes]
        defined = [kappa for kappa in kappas if kappa is not None]
        return sum(defined) / len(defined) if defined else None
    return _kappa_of([["\0".join(labels) for labels in row] for row in rows])


def _kappa_of(rows: list[list[str]]) -> float | None:
    classes = sorted({one for row in rows for one in row})
    if len(classes) < 2:
        return None  # nothing to agree on beyond chance
    if len(rows[0]) == 2:
        from sklearn.metrics import cohen_kappa_score

        with warnings.catch_warnings(action="ignore"):
            kappa = float(cohen_kappa_score([row[0] for row in rows], [row[1] for row in rows]))
        return None if math.isnan(kappa) else kappa
    counts_NK = np.array([[row.count(one) for one in classes] for row in rows], float)
    raters = len(rows[0])
    observed = ((np.square(counts_NK).sum(1) - raters) / (raters * (raters - 1))).mean()
    expected = float(np.square(counts_NK.sum(0) / counts_NK.sum()).sum())
    return float((observed - expected) / (1 - expected))
