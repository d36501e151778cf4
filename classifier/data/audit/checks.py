"""The audit: checks that find problems in a data set before training on it. Each check yields findings."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.config.sections import DataConfig
from classifier.data import split
from classifier.data.assigned_splits import AssignedSplits
from classifier.data.audit import near_duplicates
from classifier.data.audit.crowds import Links
from classifier.data.audit.finding import Finding
from classifier.data.audit.scan import ScanResult
from classifier.data.build import IMBALANCE_RATIO
from classifier.data.infer_shape import describe_few_bits, find_few_bits
from classifier.data.labels.label_sets import count_labels, describe_label
from classifier.data.readers.compact import select_strings
from classifier.data.split_names import SPLITS, TEST, TRAIN, VALIDATION
from classifier.data.split_units import number_contents
from classifier.errors import DataError, list_few

TYPICAL_SHARE = 0.1
"""If more of the images than this are dark, bright, blurred or oddly shaped, that is typical of the data set."""
MAX_BLANK_DEVIATION, MAX_DARK_LEVEL, MIN_BRIGHT_LEVEL = 1.0, 40, 240
BLUR_DEVIATIONS = 4.0
"""A blurred image is this many deviations (estimated from the median) below the median log sharpness."""
MAX_BLURRED_SHARPNESS = 0.1
MAX_ASPECT_RATIO = 3.0
MIN_TRAINING_IMAGES = 10
MIN_COMPARED_SIDE = 16
"""Images with a shorter side below this many pixels are not compared for near duplicates."""


def draw_splits_for(scan: ScanResult, config: DataConfig) -> tuple[np.ndarray, list[Finding]]:
    """Return splits_K, indices into SPLITS of the usable images, as a training would draw them; and what it refuses.

    Splits are drawn without the classes that have no images; where a training would refuse others, images without a
    split are in training.
    """
    source = scan.source
    reasons: list[str] = []
    if len(source.class_names) < 2:
        only = ", ".join(map(repr, source.class_names))
        reasons.append(f"there is one class only, {only}: a classifier needs at least two")
    if len(scan.flaws) > config.max_corrupt * len(source.labels_N):
        share = len(scan.flaws) / len(source.labels_N)
        reasons.append(f"{share:.1%} of the images are unreadable, more than data.max_corrupt {config.max_corrupt:.1%}")
    supplied_K, labels_K = source.splits_N[scan.usable_N], source.labels_N[scan.usable_N]
    splits_K = np.where(supplied_K == split.UNASSIGNED, TRAIN, supplied_K).astype(np.int8)
    counts = count_labels(labels_K, len(source.class_names), source.encode_label_sets())
    if empty := [repr(source.class_names[k]) for k in np.flatnonzero(counts == 0)]:
        classes = "a class has" if len(empty) == 1 else f"{len(empty):,} classes have"
        reasons.append(f"{classes} no usable image: {list_few(empty)}")
    try:
        splits_K = _draw(scan, config) if len(splits_K) else splits_K
    except DataError as error:
        reasons.append(str(error))
    return splits_K, [Finding(kind="refused", text=reason) for reason in reasons]


def _draw(scan: ScanResult, config: DataConfig) -> np.ndarray:
    """Return the splits of the usable images, without classes that have none. DataError as in a training."""
    source, usable_K = scan.source, scan.usable_N
    labels_K, label_sets_MK = source.labels_N[usable_K], source.encode_label_sets()
    present = np.flatnonzero(count_labels(labels_K, len(source.class_names), label_sets_MK))
    if label_sets_MK is None:
        labels_K = np.searchsorted(present, labels_K)
    usable: list[int] = usable_K.tolist()
    split_input = split.SplitInput(
        name=source.name,
        class_names=[source.class_names[k] for k in present],
        ids=select_strings(source.ids, usable),
        digests_N=scan.digests_N[usable_K],
        labels_N=labels_K,
        supplied_N=source.splits_N[usable_K],
        groups=None if source.groups is None else select_strings(source.groups, usable),
        hashes_N=scan.hashes_K,
        label_sets_MK=None if label_sets_MK is None else label_sets_MK[:, present],
        assigned=None if config.split_from is None else AssignedSplits.read(Path(config.split_from)),
    )
    drawn = split.draw_splits(split_input, validation=config.validation, test=config.test, seed=config.split_seed)
    return drawn.splits_N


def run_checks(scan: ScanResult, splits_K: np.ndarray, size: int, features_KF: Tensor | None = None) -> list[Finding]:
    """Run all checks; the most severe findings first. size: the model's input size, in pixels.

    features_KF: a model's features of the usable images, if there is one; they reveal more near duplicates.
    """
    view = _ScanView(scan, splits_K)
    # Smaller images show too little to tell a near duplicate from another image.
    compared_C = view.first_C[scan.sizes_K2.min(1)[view.first_C] >= MIN_COMPARED_SIDE]
    pairs = (
        []
        if len(compared_C) < 2
        else near_duplicates.find_pairs(scan.thumbs_KHW[compared_C], scan.sizes_K2.min(1)[compared_C])
    )
    if features_KF is not None:
        known = {(pair.first, pair.second) for pair in pairs}
        by_features = near_duplicates.find_pairs_by_features(features_KF[torch.from_numpy(compared_C)])
        pairs += [pair for pair in by_features if (pair.first, pair.second) not in known]
    findings = [
        *(Finding(kind="reading", text=text) for text in scan.source.findings),
        *_check_readable(scan),
        *_check_duplicates(view),
        *_check_groups(view),
        *_check_near_duplicates(view, pairs, compared_C),
        *_check_classes(view),
        *_check_appearance(view, size),
    ]
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


class _ScanView:
    """The usable images by their pixels. content_K: a number for all images with the same; first_C: the first image."""

    def __init__(self, scan: ScanResult, splits_K: np.ndarray) -> None:
        self.scan, self.splits_K = scan, splits_K
        self.ids = [scan.source.ids[int(n)] for n in scan.usable_N]
        self.labels_K = scan.source.labels_N[scan.usable_N]
        self.class_names, self.label_sets_MK = scan.source.class_names, scan.source.encode_label_sets()
        self.content_K, self.first_C = number_contents(scan.hashes_K)

    def describe(self, k: int) -> str:
        label = describe_label(int(self.labels_K[k]), self.class_names, self.label_sets_MK)
        return f"{self.ids[k]} ({label}, {SPLITS[self.splits_K[k]]})"

    def count_in(self, split: int) -> np.ndarray:
        """Return the images of each class in a split."""
        return count_labels(self.labels_K[self.splits_K == split], len(self.class_names), self.label_sets_MK)

    def with_content(self, content: int) -> list[int]:
        return np.flatnonzero(self.content_K == content).tolist()

    def splits_of(self, members: Sequence[int]) -> list[int]:
        return sorted({int(self.splits_K[k]) for k in members})


def _check_readable(scan: ScanResult) -> Iterator[Finding]:
    for index, flaw in scan.flaws.items():
        yield Finding(kind="unreadable", text=f"{scan.source.ids[index]}: {flaw}", ids=(scan.source.ids[index],))


def _check_duplicates(view: _ScanView) -> Iterator[Finding]:
    """Find identical contents: across splits, with several labels, or within one split."""
    order = np.argsort(view.content_K, kind="stable")
    starts = np.flatnonzero(np.diff(view.content_K[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if len(group) < 2:
            continue
        members = group.tolist()
        ids, names = tuple(view.ids[k] for k in members), list_few([view.describe(k) for k in members], 4)
        has_several_labels = len({int(view.labels_K[k]) for k in members}) > 1
        if has_several_labels:
            what = "several labels" if view.label_sets_MK is None else "other labels in each copy"
            yield Finding(kind="label_conflict", text=f"the same image has {what}: {names}", ids=ids)
        if len(splits := view.splits_of(members)) > 1:
            where = " and ".join(SPLITS[s] for s in splits)
            yield Finding(kind="leak", text=f"the same image is in {where}: {names}", ids=ids)
        elif not has_several_labels:
            yield Finding(kind="duplicate", text=f"{len(ids)} copies of one image: {names}", ids=ids)


def _check_groups(view: _ScanView) -> Iterator[Finding]:
    groups = view.scan.source.groups
    if groups is None:
        return
    members_of: dict[str, list[int]] = {}
    for k, group in enumerate(select_strings(groups, view.scan.usable_N.tolist())):
        members_of.setdefault(group, []).append(k)
    for group, members in members_of.items():
        if len(splits := view.splits_of(members)) > 1:
            where = " and ".join(SPLITS[s] for s in splits)
            ids = tuple(view.ids[k] for k in members)
            yield Finding(kind="group_leak", text=f"the group {group!r} is in {where}: {list_few(ids)}", ids=ids)


def _check_near_duplicates(
    view: _ScanView, pairs: list[near_duplicates.Pair], compared_C: np.ndarray
) -> Iterator[Finding]:
    """Find nearly identical contents, in the same three cases. compared_C: the images that the pairs index."""
    for pair in pairs:
        one, other = int(compared_C[pair.first]), int(compared_C[pair.second])
        members = [one, other]
        if len(view.splits_of(members)) == 1:  # a duplicate of one of them may be in another split
            members = [
                *view.with_content(int(view.content_K[one])),
                *view.with_content(int(view.content_K[other])),
            ]
        ids, how = (view.ids[one], view.ids[other]), ", mirrored" if pair.mirrored else ""
        how = ", by the model's features" if pair.is_by_features else how
        text = f"{view.describe(one)} and {view.describe(other)} have a similarity of {pair.similarity:.0%}{how}"
        kind = "near_duplicate"
        if len(view.splits_of(members)) > 1:
            kind = "near_leak"
        elif view.labels_K[one] != view.labels_K[other]:
            kind = "near_conflict"
        yield Finding(kind=kind, text=text, ids=ids, score=pair.similarity)


def _check_classes(view: _ScanView) -> Iterator[Finding]:
    counts_K = view.count_in(TRAIN)
    for k in np.flatnonzero(counts_K < MIN_TRAINING_IMAGES).tolist():
        count = int(counts_K[k])
        text = f"{view.class_names[k]!r} has {count} training image{'' if count == 1 else 's'}"
        yield Finding(kind="few", text=text)
    low, high = int(counts_K.argmin()), int(counts_K.argmax())
    if counts_K[high] > IMBALANCE_RATIO * max(1, counts_K[low]):
        text = f"{view.class_names[high]!r} has {counts_K[high]:,} training images, {view.class_names[low]!r}"
        yield Finding(kind="imbalance", text=f"{text} {counts_K[low]:,}")
    for s in (VALIDATION, TEST):
        if not (view.splits_K == s).any():
            continue
        for k in np.flatnonzero((view.count_in(s) == 0) & (counts_K > 0)).tolist():
            yield Finding(kind="few", text=f"{view.class_names[k]!r} has no image in {SPLITS[s]}")


def _check_appearance(view: _ScanView, size: int) -> Iterator[Finding]:
    """Check what an image looks like, by itself and compared to the others."""
    scan = view.scan
    if not len(scan.usable_N):
        return
    shorter_K, longer_K = scan.sizes_K2.min(1), scan.sizes_K2.max(1)
    levels_K3 = np.percentile(scan.thumbs_KHW.reshape(len(scan.usable_N), -1), (5, 50, 95), axis=1).T
    blank_K = scan.thumbs_KHW.reshape(len(scan.usable_N), -1).std(1) < MAX_BLANK_DEVIATION
    aspect_K = longer_K / np.maximum(shorter_K, 1)
    odd_K = aspect_K > max(MAX_ASPECT_RATIO, 1.5 * float(np.median(aspect_K)))
    dark_K = (levels_K3[:, 2] < MAX_DARK_LEVEL) & ~blank_K
    bright_K = (levels_K3[:, 0] > MIN_BRIGHT_LEVEL) & ~blank_K
    blurred_K = _are_blurred(scan) & ~blank_K
    if (bits := find_few_bits(scan.used_bits_K.tolist())) is not None:
        is_deep_K = scan.used_bits_K > 0
        deep_ids = tuple(view.ids[k] for k in np.flatnonzero(is_deep_K).tolist())
        yield Finding(kind="depth", text=f"{len(deep_ids):,} images: {describe_few_bits(bits)}", ids=deep_ids)
        blank_K, dark_K = blank_K & ~is_deep_K, dark_K & ~is_deep_K
    yield from _flag_each(view, "blank", blank_K, lambda k: "it is of a single colour")
    yield from _flag_each(
        view, "tiny", 2 * shorter_K < size, lambda k: f"{_size_in_words(view, k)}, but the model sees {size} x {size}"
    )
    yield from _flag_each(view, "aspect", odd_K, lambda k: _size_in_words(view, k), max_share=TYPICAL_SHARE)
    yield from _flag_each(view, "dark", dark_K, lambda k: "it is almost entirely black", max_share=TYPICAL_SHARE)
    yield from _flag_each(view, "bright", bright_K, lambda k: "it is almost entirely white", max_share=TYPICAL_SHARE)
    yield from _flag_each(
        view, "blurred", blurred_K, lambda k: "it is much blurrier than the others", max_share=TYPICAL_SHARE
    )
    yield from _flag_each(view, "extension", scan.misnamed_K, lambda k: "its extension is that of another format")
    yield from _flag_each(view, "frames", scan.frames_K > 1, lambda k: f"{scan.frames_K[k]} frames")


def _are_blurred(scan: ScanResult) -> np.ndarray:
    logs_K = np.log10(np.maximum(scan.sharpness_K, 1e-6))
    median = float(np.median(logs_K))
    deviation = max(0.1, 1.4826 * float(np.median(np.abs(logs_K - median))))
    return (logs_K < median - BLUR_DEVIATIONS * deviation) & (scan.sharpness_K < MAX_BLURRED_SHARPNESS)


def _size_in_words(view: _ScanView, k: int) -> str:
    width, height = view.scan.sizes_K2[k].tolist()
    return f"it has {width} x {height} pixels"


def _flag_each(
    view: _ScanView, kind: str, is_affected_K: np.ndarray, describe: Callable[[int], str], *, max_share: float = 1.0
) -> Iterator[Finding]:
    """Yield one finding per affected image; none if more than max_share of all images are affected."""
    if is_affected_K.mean() <= max_share:
        for k in np.flatnonzero(is_affected_K).tolist():
            yield Finding(kind=kind, text=f"{view.ids[k]}: {describe(k)}", ids=(view.ids[k],))


def select_clean(scan: ScanResult, splits_K: np.ndarray, findings: Sequence[Finding]) -> list[tuple[int, int]]:
    """Return the images to use, as (index in the source, index into SPLITS).

    Without unreadable images and those whose copies have other labels, with one of each duplicate, and with leaks in
    one split: test before validation before train.
    """
    index_of = {scan.source.ids[n]: k for k, n in enumerate(scan.usable_N.tolist())}
    dropped: set[int] = set()
    splits = splits_K.astype(int).tolist()
    for finding in findings:
        members = [index_of[id_] for id_ in finding.ids if id_ in index_of]
        if finding.kind == "label_conflict":
            dropped.update(members)
        elif finding.kind in ("leak", "duplicate"):
            last_split = max(splits[k] for k in members)
            first = min(k for k in members if splits[k] == last_split)
            dropped.update(k for k in members if k != first)
    near = [f for f in findings if f.kind in ("near_leak", "near_duplicate", "near_conflict")]
    for members in _merge_overlapping([[index_of[id_] for id_ in finding.ids] for finding in near]):
        last_split = max(splits[k] for k in members)
        for k in members:
            splits[k] = last_split
    return [(n, splits[k]) for k, n in enumerate(scan.usable_N.tolist()) if k not in dropped]


def _merge_overlapping(groups: list[list[int]]) -> list[list[int]]:
    """Merge groups that share a member."""
    members = {k for group in groups for k in group}
    links = Links(max(members, default=-1) + 1)
    for group in groups:
        for k in group[1:]:
            links.add(group[0], k)
    return links.find_groups(members)
