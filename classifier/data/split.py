"""Splits of a data set, drawn by image content.

A hash of (seed, content) is a number u in [0, 1). Below `test` it is a test image, from 1 - `validation` on a
validation image, in between a training image: shares hold in expectation, duplicates stay together, and another test
share moves no image to or from validation. A class that such a draw leaves out of a split gets the image whose number
is nearest to that split; no other image is ever in another split than its number says. A class of one image trains
with it, and is not tested. Where images have several labels, each label's share holds in expectation, too, and an image
moves for a label only where its other labels can spare it, the rarest labels first; iterative stratification, which
would place each image by all others, is for folds alone (folds.py).

So added images move an existing one only if it was lent to a split that its class lacked, or if a new image joins it
with others: another file with its pixels, or one that connects two groups. Splits that were assigned before
(assigned_splits.py) never change: new images follow those with which they belong together, and only new ones are lent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.data import split_classes
from classifier.data.folds import assign_folds
from classifier.data.labels.label_sets import count_labels, describe_label
from classifier.data.split_names import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION
from classifier.data.split_units import SplitInput, SplitUnits
from classifier.errors import DataError, list_few


@dataclass(frozen=True)
class Reassignment:
    """An image that is in another split than its number says, because its class lacked one there."""

    id: str
    class_name: str
    drawn_split: str
    split: str

    def as_dict(self) -> dict[str, str]:
        """The entry of split.json."""
        return {"id": self.id, "class_name": self.class_name, "home": self.drawn_split, "split": self.split}


FindingKind = Literal[
    "not_supplied",
    "duplicates_across",
    "groups_across",
    "label_conflict",
    "single_image",
    "missing_class",
    "reassigned",
    "recalled",
]


@dataclass(frozen=True)
class SplitFinding:
    """What a user should know about a split. text: a sentence; kind: what it is about, for code that looks for it."""

    kind: FindingKind
    text: str


@dataclass(frozen=True, eq=False)
class DrawnSplits:
    """The result of a draw. splits_N: int8, an index of SPLITS for every image. units_N: int64, equal for images that
    belong together: copies, and those of a group."""

    splits_N: np.ndarray
    units_N: np.ndarray
    reassignments: tuple[Reassignment, ...]
    findings: tuple[SplitFinding, ...]


def draw_splits(
    images: SplitInput,
    *,
    validation: float,
    test: float,
    seed: int,
    folds: int | None = None,
    fold: int = 0,
) -> DrawnSplits:
    """Draw the split of every image. Supplied splits are kept; missing ones are drawn from the other images and train.

    With folds, the test split is one fold of all images that were not supplied as test: those are in no split then
    (UNASSIGNED), and supplied validation images are drawn again like all others.

    Few images may leave the validation split without any, and those of classes of one image each the test split.
    DataError if the shares leave nothing to train on, or a class has too few images.
    """
    name, supplied_N = images.name, images.supplied_N
    if folds is not None and fold >= folds:
        raise DataError(f"data.fold {fold}: {folds} folds are numbered from 0 to {folds - 1}")
    if folds is not None:
        supplied_N = np.where(supplied_N == TEST, TEST, UNASSIGNED).astype(np.int8)
    supplied = {int(split) for split in np.unique(supplied_N)} - {UNASSIGNED}
    shares = {TEST: test, VALIDATION: validation}
    missing = [split for split, share in shares.items() if split not in supplied and share > 0]
    if folds is not None:
        missing = [VALIDATION] if validation > 0 else []
    if sum(shares[split] for split in missing) >= 1:
        raise DataError(
            f"{name}: data.validation {validation:g} and data.test {test:g} leave no images to train on: lower them"
        )
    units = SplitUnits(images, seed)
    pool_N = np.isin(supplied_N, (UNASSIGNED, TRAIN))
    is_divided = bool(missing) and bool(pool_N.all())
    is_single_K = split_classes.check_sizes(images, units, is_divided=is_divided, in_folds=folds is not None)
    u_N = units.u_U[units.unit_N]
    splits_N = np.where(pool_N, TRAIN, supplied_N).astype(np.int8)
    if folds is not None:
        splits_N[~pool_N] = UNASSIGNED
        pool = np.flatnonzero(pool_N)
        folds_P = assign_folds(images.labels_N[pool], units.unit_N[pool], folds, seed, images.label_sets_MK)
        splits_N[pool[folds_P == fold]] = TEST
        pool_N = splits_N == TRAIN
    if TEST in missing:
        splits_N[pool_N & (u_N < test)] = TEST
    if VALIDATION in missing:
        splits_N[pool_N & (u_N >= 1 - validation)] = VALIDATION
    recalled_N = np.full(len(splits_N), UNASSIGNED, np.int8)
    assigned = images.assigned if folds is None else None
    if assigned is not None:
        recalled = assigned.recall_units(images.digests_N, images.hashes_N, units.content_N, units.unit_N)
        recalled_N[pool_N] = recalled[pool_N]
        splits_N = np.where(recalled_N == UNASSIGNED, splits_N, recalled_N)
    drawn_N = splits_N.copy()
    moved_for: dict[int, int] = {}
    if missing:
        fixed_N = recalled_N != UNASSIGNED
        moved_for = split_classes.fill_missing(images, units, splits_N, pool_N, fixed_N, missing, shares)
    needed = {TRAIN} if is_single_K.all() else {TRAIN} | {TEST}.intersection(missing)
    if not needed <= set(splits_N.tolist()):
        raise DataError(f"{name} has too few images ({len(splits_N)}) to draw its splits: add more")
    split_classes.check_training(images, splits_N)
    reassignments = tuple(
        Reassignment(
            images.ids[n],
            images.class_names[moved_for[int(units.unit_N[n])]],
            SPLITS[drawn_N[n]],
            SPLITS[splits_N[n]],
        )
        for n in np.flatnonzero(drawn_N != splits_N).tolist()
    )
    findings = [
        *_find_drawn_splits(name, supplied, missing, splits_N[pool_N]),
        *_find_overlaps(images, units, splits_N),
    ]
    if assigned is not None:
        count = f"{(recalled_N != UNASSIGNED).sum():,} of {len(splits_N):,}"
        text = f"{count} images have their split from an earlier run (data.split_from)."
        findings.append(SplitFinding("recalled", text))
    tested_N = images.labels_N[splits_N != TRAIN]
    is_tested_K = count_labels(tested_N, len(is_single_K), images.label_sets_MK) > 0
    is_single_K &= ~is_tested_K & bool(missing)
    findings += _find_label_conflicts(images, units)
    findings += [SplitFinding("single_image", text) for text in split_classes.describe_single(images, is_single_K)]
    lacking = split_classes.describe_missing(images, splits_N, is_single_K)
    findings += [SplitFinding("missing_class", text) for text in lacking]
    singles = {images.class_names[k] for k in np.flatnonzero(is_single_K).tolist()}
    if moves := [moved for moved in reassignments if moved.class_name not in singles]:
        examples = list_few([f"{moved.id} ({moved.drawn_split} to {moved.split})" for moved in moves])
        text = (
            f"{len(moves)} images of small classes were moved, so that no split lacks a class: {examples}. "
            "When images are added they may move back, unless the next run has --data.split_from with this one."
        )
        findings.append(SplitFinding("reassigned", text))
    return DrawnSplits(splits_N, units.unit_N, reassignments, tuple(findings))


def _find_drawn_splits(name: str, supplied: set[int], missing: list[int], splits_P: np.ndarray) -> list[SplitFinding]:
    """splits_P: of the images that splits are drawn from."""
    if not supplied:
        return []
    counts = {split: f"{(splits_P == split).sum():,} of its {len(splits_P):,}" for split in missing}
    return [
        SplitFinding(
            "not_supplied",
            f"{name} has no {SPLITS[split]} split: {count} training images are set aside for it.",
        )
        for split, count in counts.items()
    ]


def _find_overlaps(images: SplitInput, units: SplitUnits, splits_N: np.ndarray) -> list[SplitFinding]:
    """Find duplicates in two splits, which make a score look better than it is."""
    findings = []
    ways: list[tuple[FindingKind, np.ndarray, str]] = [
        ("duplicates_across", units.content_N, f"are in {{}} too, {_compared(images)}")
    ]
    if images.groups is not None:
        group_N = np.unique(np.asarray(images.groups), return_inverse=True)[1]
        ways.append(("groups_across", group_N, "belong to groups that are in {} too"))
    for kind, unit_N, how in ways:
        units_S = [np.unique(unit_N[splits_N == split]) for split in range(3)]
        for a, b in ((TRAIN, TEST), (TRAIN, VALIDATION), (VALIDATION, TEST)):
            common = np.intersect1d(units_S[a], units_S[b])
            copies = np.flatnonzero(np.isin(unit_N, common) & (splits_N == b)).tolist()
            if len(copies):
                examples = list_few([images.ids[n] for n in copies])
                text = f"{len(copies)} {SPLITS[b]} images {how.format(SPLITS[a])}: {examples}."
                findings.append(SplitFinding(kind, text))
    return findings


def _compared(images: SplitInput) -> str:
    return "byte for byte" if images.hashes_N is None else "pixel for pixel"


def _find_label_conflicts(images: SplitInput, units: SplitUnits) -> list[SplitFinding]:
    shared = np.flatnonzero(units.shared_C)
    if not len(shared):
        return []
    example = np.flatnonzero(units.content_N == shared[0]).tolist()
    other = next(n for n in example if images.labels_N[n] != images.labels_N[example[0]])
    pair = " and ".join(
        f"{images.ids[n]} ({describe_label(int(images.labels_N[n]), images.class_names, images.label_sets_MK)})"
        for n in (example[0], other)
    )
    what = "have several labels" if images.label_sets_MK is None else "have copies with other labels"
    text = f"{len(shared)} images {what}, {_compared(images)}; one pair is {pair}."
    return [SplitFinding("label_conflict", text)]
