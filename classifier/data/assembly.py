"""From what a reader found to a Dataset: decode, refuse what cannot be learned from, split, measure."""

import dataclasses
import hashlib
import json

import numpy as np
import torch

from classifier.config import DataConfig
from classifier.data import pictures, split
from classifier.data.dataset import SPLITS, Dataset, Part
from classifier.data.pictures import Pictures
from classifier.data.source import Source, kind_of
from classifier.errors import DataError

CHUNK = 2**19
"""Values that are counted at a time: they stay in the processor's cache."""

NAMED_FLAWS = 1000
"""Pictures with a flaw that split.json names; it counts them all."""


def assemble(source: Source, config: DataConfig) -> Dataset:
    """The data set as `config` wants it. DataError if it cannot be trained or tested on."""
    if len(source.class_names) < 2:
        only = ", ".join(map(repr, source.class_names)) or "none"
        raise DataError(
            f"{source.name} has fewer than two classes ({only}): a classifier needs at least two to tell apart"
        )
    found = pictures.decoded(source, config)
    findings = [*source.findings, *_judged(source, found.flaws, config.max_corrupt)]
    source, found, flaws = _usable(source, found)
    drawn = split.draw(
        split.Labelled(
            name=source.name,
            class_names=source.class_names,
            ids=source.ids,
            digests=found.digests,
            labels_N=source.labels_N,
            supplied_N=source.splits_N,
        ),
        validation=config.validation,
        test=config.test,
        seed=config.split_seed,
    )
    parts = {name: _part(source, found, drawn.splits_N == number) for number, name in enumerate(SPLITS)}
    mean, std = statistics(parts["train"].images_NCHW.numpy())
    return Dataset(
        name=source.name,
        kind=source.kind or kind_of(source.class_names),
        class_names=source.class_names,
        **parts,
        mean=mean,
        std=std,
        fit=config.fit,
        fingerprint=_fingerprint(source, found, drawn.splits_N, config.fit),
        findings=(*findings, *drawn.findings),
        loans={
            "seed": config.split_seed,
            "validation": config.validation,
            "test": config.test,
            "loans": [dataclasses.asdict(loan) for loan in drawn.loans],
            "unreadable_count": len(flaws),
            "unreadable": flaws[:NAMED_FLAWS],
        },
    )


def statistics(images_NCHW: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in [0, 1]; a flat channel's deviation is 1/255.

    From counts of the 256 values, which are exact: the same in any order and on any number of threads.
    """
    channels = images_NCHW.shape[1]
    counts = np.zeros((channels, 256))
    chunk = max(1, CHUNK // images_NCHW[0].size)
    for start in range(0, len(images_NCHW), chunk):
        for channel in range(channels):
            values = images_NCHW[start : start + chunk, channel].reshape(-1)
            counts[channel] += np.bincount(values, minlength=256)
    shares = counts / counts.sum(1, keepdims=True)
    values = np.arange(256)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return tuple((mean / 255).tolist()), tuple((np.maximum(std, 1) / 255).tolist())


def _judged(source: Source, flaws: dict[int, str], most: float) -> list[str]:
    """What to tell of pictures that cannot be used. DataError if they are too many."""
    if not flaws:
        return []
    total, listed = len(source.labels_N), pictures.listed(source, flaws)
    share = len(flaws) / total
    if share > most:
        raise DataError(
            f"{source.name}: {len(flaws):,} of {total:,} pictures ({share:.1%}, more than data.max_corrupt {most:.1%}) "
            f"cannot be used: {listed}; replace or remove them, or raise --data.max_corrupt"
        )
    return [f"{len(flaws):,} of {total:,} pictures cannot be used and were skipped: {listed}."]


def _usable(source: Source, found: Pictures) -> tuple[Source, Pictures, list[dict[str, str]]]:
    """Source and pictures without the flawed ones, and a list of these."""
    if not found.flaws:
        return source, found, []
    keep = np.ones(len(source.labels_N), bool)
    keep[list(found.flaws)] = False
    kept = np.flatnonzero(keep).tolist()
    usable = dataclasses.replace(
        source,
        ids=[source.ids[n] for n in kept],
        labels_N=source.labels_N[kept],
        splits_N=source.splits_N[kept],
        pictures=[],  # decoded already
    )
    digests = [found.digests[n] for n in kept]
    flaws = [{"id": source.ids[n], "reason": flaw} for n, flaw in found.flaws.items()]
    return usable, Pictures(found.images_NCHW[kept], digests, {}), flaws


def _part(source: Source, found: Pictures, chosen_N: np.ndarray) -> Part:
    return Part(
        images_NCHW=torch.from_numpy(found.images_NCHW[chosen_N]),
        labels_N=torch.from_numpy(source.labels_N[chosen_N]),
        ids=tuple(source.ids[n] for n in np.flatnonzero(chosen_N).tolist()),
    )


def _fingerprint(source: Source, found: Pictures, splits_N: np.ndarray, fit: str) -> str:
    shape = found.images_NCHW.shape[1:]
    hasher = hashlib.sha256(json.dumps([source.class_names, fit, shape]).encode())
    hasher.update(b"".join(found.digests))
    hasher.update(source.labels_N.astype("<i8").tobytes())
    hasher.update(splits_N.tobytes())
    return hasher.hexdigest()[:16]
