"""From what a reader found to a Dataset: decode, refuse what cannot be learned from, split, measure."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import torch

from classifier.config.sections import DataConfig
from classifier.data import decode_all, split
from classifier.data.dataset import Dataset, Split
from classifier.data.decode_all import DecodedImages
from classifier.data.image_decoder import Progress
from classifier.data.images.arrays import Images, MappedImages, select
from classifier.data.images.pixel_segment import sum_channels, summed_lines
from classifier.data.images.stream import SAMPLE_IMAGES, StreamedImages
from classifier.data.readers.compact import select_strings as chosen_names
from classifier.data.readers.source import Source, guess_image_kind
from classifier.data.split_names import SPLITS
from classifier.errors import DataError

IMBALANCE = 10.0
"""A class with so many times fewer training images than another is told of."""
CHUNK = 2**19
"""Values that are summed at a time: they stay in the processor's cache."""

NAMED_FLAWS = 1000
"""Pictures with a flaw that split.json names; it counts them all."""


def assemble(source: Source, config: DataConfig, progress: Progress | None = None) -> Dataset:
    """The data set as `config` wants it. DataError if it cannot be trained or tested on."""
    if len(source.class_names) < 2:
        only = ", ".join(map(repr, source.class_names)) or "none"
        raise DataError(
            f"{source.name} has fewer than two classes ({only}): a classifier needs at least two to tell apart"
        )
    found = decode_all.decode_source(source, config, progress)
    streamed = "its splits are drawn by the pictures' names, and copies are not looked for (python jobs/audit.py does)"
    told = [f"{source.name} is read as a stream: {streamed}."] if config.stream else []
    if isinstance(found.images_NCHW, MappedImages) and found.images_NCHW.is_lossy:
        told.append("its pictures are kept as JPEGs of quality 95 (--data.cache_as).")
    findings = [*source.findings, *told, *_judged(source, found.errors, config.max_corrupt)]
    source, found, flaws = _usable(source, found)
    drawn = split.draw_splits(
        split.SplitInput(
            name=source.name,
            class_names=source.class_names,
            ids=source.ids,
            digests_N=found.digests_N,
            labels_N=source.labels_N,
            supplied_N=source.splits_N,
            groups=source.groups,
        ),
        validation=config.validation,
        test=config.test,
        seed=config.split_seed,
        folds=config.folds,
        fold=config.fold,
    )
    parts = {name: _part(source, found, drawn.splits_N == number) for number, name in enumerate(SPLITS)}
    mean, std = statistics(parts["train"].images_NCHW)
    return Dataset(
        name=source.name,
        kind=source.kind or guess_image_kind(source.class_names),
        class_names=source.class_names,
        **parts,
        mean=mean,
        std=std,
        fit=config.fit,
        fingerprint=_fingerprint(source, found, drawn.splits_N, config.fit),
        findings=(
            *findings,
            *(finding.text for finding in drawn.findings),
            *_uneven(source.class_names, parts["train"]),
        ),
        split_record={
            "seed": config.split_seed,
            "validation": config.validation,
            "test": config.test,
            "loans": [dataclasses.asdict(loan) for loan in drawn.loans],
            "findings": [dataclasses.asdict(finding) for finding in drawn.findings],
            "unreadable_count": len(flaws),
            "unreadable": flaws[:NAMED_FLAWS],
        },
    )


def statistics(images_NCHW: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], over all pictures; a flat channel's deviation is 1/255.

    From sums of whole numbers, which are exact: the same in any order, and wherever the pictures lie. Of large pictures
    every fourth line counts (draft.lines), of a stream a sample.
    """
    if isinstance(images_NCHW, StreamedImages):
        return statistics(images_NCHW[torch.linspace(0, len(images_NCHW) - 1, SAMPLE_IMAGES).long().unique()])
    height, width = images_NCHW.shape[2:]
    looked = summed_lines(height)
    if isinstance(images_NCHW, MappedImages):
        sums_C2 = images_NCHW.sum_channels()
    else:
        looked_at = images_NCHW[:, :, looked]
        step = max(1, CHUNK // looked_at[0].numel())
        parts = [sum_channels(part.numpy()).sum(0) for part in looked_at.split(step)]
        sums_C2 = np.sum(parts, axis=0)
    count = len(images_NCHW) * len(range(height)[looked]) * width
    mean, std = [], []
    for total, squares in sums_C2.tolist():
        mean.append(total / count / 255)
        std.append(max(math.sqrt(squares * count - total * total) / count, 1) / 255)
    return tuple(mean), tuple(std)


def _judged(source: Source, flaws: dict[int, str], most: float) -> list[str]:
    """What to tell of pictures that cannot be used. DataError if they are too many."""
    if not flaws:
        return []
    total, listed = len(source.labels_N), decode_all.list_errors(source, flaws)
    share = len(flaws) / total
    if share > most:
        raise DataError(
            f"{source.name}: {len(flaws):,} of {total:,} pictures ({share:.1%}, more than data.max_corrupt {most:.1%}) "
            f"cannot be used: {listed}; replace or remove them, or raise --data.max_corrupt"
        )
    return [f"{len(flaws):,} of {total:,} pictures cannot be used and were skipped: {listed}."]


def _usable(source: Source, found: DecodedImages) -> tuple[Source, DecodedImages, list[dict[str, str]]]:
    """Source and pictures without the flawed ones, and a list of these."""
    if not found.errors:
        return source, found, []
    keep = np.ones(len(source.labels_N), bool)
    keep[list(found.errors)] = False
    kept = np.flatnonzero(keep).tolist()
    usable = dataclasses.replace(
        source,
        ids=chosen_names(source.ids, kept),
        labels_N=source.labels_N[kept],
        splits_N=source.splits_N[kept],
        groups=None if source.groups is None else chosen_names(source.groups, kept),
        images=[],  # decoded already
    )
    flaws = [{"id": source.ids[n], "reason": flaw} for n, flaw in found.errors.items()]
    images = select(found.images_NCHW, torch.tensor(kept, dtype=torch.int64))
    return usable, DecodedImages(images, found.digests_N[keep], {}), flaws


def _uneven(class_names: Sequence[str], train: Split) -> list[str]:
    counts_K = np.bincount(train.labels_N.numpy(), minlength=len(class_names))
    low, high = int(counts_K.argmin()), int(counts_K.argmax())
    if counts_K[high] <= IMBALANCE * counts_K[low]:
        return []
    return [
        f"{class_names[high]!r} has {counts_K[high]:,} training pictures, {class_names[low]!r} {counts_K[low]:,}: read "
        "the macro F1, and see --data.balance, --loss.class_weights and --loss.adjustment."
    ]


def _part(source: Source, found: DecodedImages, here_N: np.ndarray) -> Split:
    return Split(
        images_NCHW=select(found.images_NCHW, torch.from_numpy(np.flatnonzero(here_N))),
        labels_N=torch.from_numpy(source.labels_N[here_N]),
        ids=chosen_names(source.ids, np.flatnonzero(here_N).tolist()),
    )


def _fingerprint(source: Source, found: DecodedImages, splits_N: np.ndarray, fit: str) -> str:
    shape = found.images_NCHW.shape[1:]
    hasher = hashlib.sha256(json.dumps([source.class_names, fit, shape]).encode())
    hasher.update(found.digests_N.tobytes())
    hasher.update(source.labels_N.astype("<i8").tobytes())
    hasher.update(splits_N.tobytes())
    return hasher.hexdigest()[:16]
