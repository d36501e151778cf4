"""The audit: what is wrong with a data set, found before anyone trains on it. Each check gives findings."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from classifier.config.sections import DataConfig
from classifier.data import split
from classifier.data.audit import near_duplicates
from classifier.data.audit.finding import Finding
from classifier.data.audit.scan import ScanResult
from classifier.data.build import IMBALANCE
from classifier.data.readers.compact import select_strings
from classifier.data.split_names import SPLITS, TEST, TRAIN, VALIDATION
from classifier.errors import list_few

# Where more of the images than this are dark, bright, blurred or oddly shaped, that is what such images are.
TYPICAL_SHARE = 0.1
MAX_BLANK_DEVIATION, MAX_DARK_LEVEL, MIN_BRIGHT_LEVEL = 1.0, 40, 240
BLUR_DEVIATIONS = 4.0
"""How many deviations (by the median's) softer than the others a blurred picture is, on a logarithmic scale."""
MAX_BLURRED_SHARPNESS = 0.1
MAX_ASPECT_RATIO = 3.0
MIN_TRAINING_IMAGES = 10
MIN_COMPARED_SIDE = 16
"""Pixels of the shorter side from which on near-copies are looked for."""


def draw_splits_for(looked: ScanResult, config: DataConfig) -> np.ndarray:
    """int8, an index of SPLITS for each of the kept pictures, as a training would draw them. Errors of split.draw."""
    source = looked.source
    kept: list[int] = looked.usable_N.tolist()
    labelled = split.SplitInput(
        name=source.name,
        class_names=source.class_names,
        ids=select_strings(source.ids, kept),
        digests_N=looked.digests_N[looked.usable_N],
        labels_N=source.labels_N[looked.usable_N],
        supplied_N=source.splits_N[looked.usable_N],
        groups=None if source.groups is None else select_strings(source.groups, kept),
    )
    return split.draw_splits(labelled, validation=config.validation, test=config.test, seed=config.split_seed).splits_N


def run_checks(looked: ScanResult, splits_K: np.ndarray, size: int, features_KF: Tensor | None = None) -> list[Finding]:
    """All that is wrong, the worst first. size: the side, in pixels, of what the model will see.

    features_KF: what a model sees in the kept pictures, where there is one; it knows more near-copies.
    """
    view = _ScanView(looked, splits_K)
    # What is smaller shows too little to tell a copy from another picture.
    told_C = view.first_C[looked.sizes_K2.min(1)[view.first_C] >= MIN_COMPARED_SIDE]
    near = near_duplicates.find_pairs(looked.thumbs_KHW[told_C], looked.sizes_K2.min(1)[told_C])
    if features_KF is not None:
        known = {(pair.first, pair.second) for pair in near}
        seen = near_duplicates.find_pairs_by_features(features_KF[torch.from_numpy(told_C)])
        near += [pair for pair in seen if (pair.first, pair.second) not in known]
    found = [*_check_readable(looked), *_check_duplicates(view), *_check_groups(view), *_check_near_duplicates(view, near, told_C), *_check_classes(view)]
    found += _check_appearance(view, size)
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))


class _ScanView:
    """The kept pictures by content. content_K: a number for what each holds; first_C: a picture of each content."""

    def __init__(self, looked: ScanResult, splits_K: np.ndarray) -> None:
        self.looked, self.splits_K = looked, splits_K
        kept: list[int] = looked.usable_N.tolist()
        self.ids: list[str] = [looked.source.ids[n] for n in kept]
        self.labels_K = looked.source.labels_N[looked.usable_N]
        self.class_names = looked.source.class_names
        self.content_K, self.first_C = split.number_contents(looked.digests_N[looked.usable_N])

    def name(self, k: int) -> str:
        return f"{self.ids[k]} ({self.class_names[self.labels_K[k]]}, {SPLITS[self.splits_K[k]]})"

    def of_content(self, content: int) -> list[int]:
        return np.flatnonzero(self.content_K == content).tolist()


def _check_readable(looked: ScanResult) -> Iterator[Finding]:
    for index, flaw in looked.flaws.items():
        yield Finding(kind="unreadable", text=f"{looked.source.ids[index]}: {flaw}", ids=(looked.source.ids[index],))


def _check_duplicates(view: _ScanView) -> Iterator[Finding]:
    """Equal contents: across splits, under two labels, or twice in one place."""
    order = np.argsort(view.content_K, kind="stable")
    starts = np.flatnonzero(np.diff(view.content_K[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if len(group) < 2:
            continue
        members = group.tolist()
        ids, names = tuple(view.ids[k] for k in members), list_few([view.name(k) for k in members], 4)
        if len({int(view.labels_K[k]) for k in members}) > 1:
            yield Finding(kind="label_conflict", text=f"the same picture has several labels: {names}", ids=ids)
        if len(sides := {int(view.splits_K[k]) for k in members}) > 1:
            where = " and ".join(SPLITS[s] for s in sorted(sides))
            yield Finding(kind="leak", text=f"the same picture lies in {where}: {names}", ids=ids)
        elif len({int(view.labels_K[k]) for k in members}) == 1:
            yield Finding(kind="duplicate", text=f"{len(ids)} copies of one picture: {names}", ids=ids)


def _check_groups(view: _ScanView) -> Iterator[Finding]:
    groups = view.looked.source.groups
    if groups is None:
        return
    members: dict[str, list[int]] = {}
    for k, group in enumerate(select_strings(groups, view.looked.usable_N.tolist())):
        members.setdefault(group, []).append(k)
    for group, places in members.items():
        if len(sides := {int(view.splits_K[k]) for k in places}) > 1:
            where = " and ".join(SPLITS[s] for s in sorted(sides))
            ids = tuple(view.ids[k] for k in places)
            yield Finding(kind="group_leak", text=f"the group {group!r} lies in {where}: {list_few(ids)}", ids=ids)


def _check_near_duplicates(view: _ScanView, near: list[near_duplicates.Pair], told_C: np.ndarray) -> Iterator[Finding]:
    """Nearly equal contents, in the same three cases. told_C: the pictures that the pairs number."""
    for pair in near:
        one, other = int(told_C[pair.first]), int(told_C[pair.second])
        members = [one, other]
        if len({view.splits_K[k] for k in members}) == 1:  # a copy of one of them may lie on another side
            members = [
                *view.of_content(int(view.content_K[one])),
                *view.of_content(int(view.content_K[other])),
            ]
        ids, how = (view.ids[one], view.ids[other]), ", mirrored" if pair.mirrored else ""
        how = ", as the model sees them" if pair.is_by_features else how
        names = f"{view.name(one)} and {view.name(other)} are alike to {pair.similarity:.0%}{how}"
        kind = "near_duplicate"
        if len({int(view.splits_K[k]) for k in members}) > 1:
            kind = "near_leak"
        elif view.labels_K[one] != view.labels_K[other]:
            kind = "near_conflict"
        yield Finding(kind=kind, text=names, ids=ids, score=pair.similarity)


def _check_classes(view: _ScanView) -> Iterator[Finding]:
    counts_K = np.bincount(view.labels_K[view.splits_K == TRAIN], minlength=len(view.class_names))
    for k in np.flatnonzero(counts_K < MIN_TRAINING_IMAGES).tolist():
        yield Finding(kind="few", text=f"{view.class_names[k]!r} has {counts_K[k]} images to train on")
    low, high = int(counts_K.argmin()), int(counts_K.argmax())
    if counts_K[high] > IMBALANCE * max(1, counts_K[low]):
        text = f"{view.class_names[high]!r} has {counts_K[high]:,} images to train on, {view.class_names[low]!r}"
        yield Finding(kind="imbalance", text=f"{text} {counts_K[low]:,}")
    for s in (VALIDATION, TEST):
        if not (view.splits_K == s).any():
            continue
        here_K = np.bincount(view.labels_K[view.splits_K == s], minlength=len(view.class_names))
        for k in np.flatnonzero((here_K == 0) & (counts_K > 0)).tolist():
            yield Finding(kind="few", text=f"{view.class_names[k]!r} has no image in {SPLITS[s]}")


def _check_appearance(view: _ScanView, size: int) -> Iterator[Finding]:
    """What a picture looks like by itself, or beside the others."""
    looked = view.looked
    if not len(looked.usable_N):
        return
    shorter_K, longer_K = looked.sizes_K2.min(1), looked.sizes_K2.max(1)
    levels_K3 = np.percentile(looked.thumbs_KHW.reshape(len(looked.usable_N), -1), (5, 50, 95), axis=1).T
    blank_K = looked.thumbs_KHW.reshape(len(looked.usable_N), -1).std(1) < MAX_BLANK_DEVIATION
    yield from _flag_each(view, "blank", blank_K, lambda k: "it has one colour")
    tiny_K = 2 * shorter_K < size
    yield from _flag_each(view, "tiny", tiny_K, lambda k: f"{_size_in_words(view, k)}, and the model sees {size}")
    aspect_K = longer_K / np.maximum(shorter_K, 1)
    odd_K = aspect_K > max(MAX_ASPECT_RATIO, 1.5 * float(np.median(aspect_K)))
    yield from _flag_each(view, "aspect", odd_K, lambda k: f"{_size_in_words(view, k)}", most=TYPICAL_SHARE)
    yield from _flag_each(view, "dark", (levels_K3[:, 2] < MAX_DARK_LEVEL) & ~blank_K, lambda k: "almost all is black", most=TYPICAL_SHARE)
    yield from _flag_each(
        view, "bright", (levels_K3[:, 0] > MIN_BRIGHT_LEVEL) & ~blank_K, lambda k: "almost all is white", most=TYPICAL_SHARE
    )
    yield from _flag_each(
        view, "blurred", _are_blurred(looked) & ~blank_K, lambda k: "it is much softer than the others", most=TYPICAL_SHARE
    )
    yield from _flag_each(view, "extension", looked.misnamed_K, lambda k: "its ending names another format")
    yield from _flag_each(view, "frames", looked.frames_K > 1, lambda k: f"{looked.frames_K[k]} frames")


def _are_blurred(looked: ScanResult) -> np.ndarray:
    logs_K = np.log10(np.maximum(looked.sharpness_K, 1e-6))
    median = float(np.median(logs_K))
    deviation = max(0.1, 1.4826 * float(np.median(np.abs(logs_K - median))))
    return (logs_K < median - BLUR_DEVIATIONS * deviation) & (looked.sharpness_K < MAX_BLURRED_SHARPNESS)


def _size_in_words(view: _ScanView, k: int) -> str:
    width, height = view.looked.sizes_K2[k].tolist()
    return f"it has {width} x {height} pixels"


def _flag_each(
    view: _ScanView, kind: str, which_K: np.ndarray, says: Callable[[int], str], *, most: float = 1.0
) -> Iterator[Finding]:
    """A finding a picture; none where it is what such pictures are like."""
    if which_K.mean() <= most:
        for k in np.flatnonzero(which_K).tolist():
            yield Finding(kind=kind, text=f"{view.ids[k]}: {says(k)}", ids=(view.ids[k],))


def select_clean(looked: ScanResult, splits_K: np.ndarray, found: Sequence[Finding]) -> list[tuple[int, int]]:
    """What of the source to go on with, as (index, index of SPLITS): without what cannot be read or has two labels,
    with one of each duplicate, and with leaks on one side, the test's before validation's before the training's."""
    place = {looked.source.ids[n]: k for k, n in enumerate(looked.usable_N.tolist())}
    gone: set[int] = set()
    splits = splits_K.astype(int).tolist()
    for finding in found:
        members = [place[id_] for id_ in finding.ids if id_ in place]
        if finding.kind == "label_conflict":
            gone.update(members)
        elif finding.kind in ("leak", "duplicate"):
            side = max(splits[k] for k in members)
            first = min(k for k in members if splits[k] == side)
            gone.update(k for k in members if k != first)
    joined = [
        [place[id_] for id_ in f.ids] for f in found if f.kind in ("near_leak", "near_duplicate", "near_conflict")
    ]
    for members in _merge_overlapping(joined):
        side = max(splits[k] for k in members)
        for k in members:
            splits[k] = side
    return [(n, splits[k]) for k, n in enumerate(looked.usable_N.tolist()) if k not in gone]


def _merge_overlapping(groups: list[list[int]]) -> list[list[int]]:
    """Groups that share a member, as one."""
    home: dict[int, list[int]] = {}
    for group in groups:
        parts = {id(home[k]): home[k] for k in group if k in home}
        merged = sorted({*group, *(k for part in parts.values() for k in part)})
        for k in merged:
            home[k] = merged
    return [*{id(part): part for part in home.values()}.values()]
