"""Build a Dataset from a source: decode, refuse unusable data, split, compute statistics."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.config.sections import DataConfig, Task
from classifier.data import decode_all, split
from classifier.data.assigned_splits import AssignedSplits
from classifier.data.columns.learn import learn_schema
from classifier.data.columns.request import ColumnRequest
from classifier.data.columns.schema import ColumnSchema
from classifier.data.dataset import Dataset, Split
from classifier.data.decode_all import DecodedImages
from classifier.data.image_decoder import Progress
from classifier.data.images.arrays import Images, MappedImages, select
from classifier.data.images.pixel_segment import sum_channels, summed_lines
from classifier.data.images.stream import SAMPLE_IMAGES, StreamedImages
from classifier.data.labels.grades import order_grades
from classifier.data.labels.label_sets import count_labels
from classifier.data.larger_images import decode_larger, take_images
from classifier.data.readers.compact import select_strings
from classifier.data.readers.source import Source, guess_image_kind
from classifier.data.split_names import SPLITS
from classifier.errors import ConfigError, DataError, list_few

IMBALANCE_RATIO = 10.0
"""A class with this many times fewer training images than another is reported."""
BLOCK_VALUES = 2**19
"""Values that are summed at a time: they fit in the processor's cache."""
MAX_LISTED_ERRORS = 1000
"""Unusable images that split.json names; it counts them all."""


def build_dataset(
    source: Source,
    config: DataConfig,
    progress: Progress | None = None,
    schema: ColumnSchema | None = None,
    *,
    min_classes: int = 2,
) -> Dataset:
    """Build the data set that `config` describes. DataError if it cannot be trained or tested on.

    schema: encodes the columns that join the images; if None, it is learned from the training images. min_classes: 1
    for images that are added to others.
    """
    if len(source.class_names) < min_classes:
        only = ", ".join(map(repr, source.class_names)) or "none"
        raise DataError(f"{source.name} has fewer than two classes ({only}): a classifier needs at least two")
    task = choose_task(source, config)
    if task == "ordinal":
        source = sort_grades(source, config.order)
    decoded = decode_all.decode_source(source, config, progress)
    findings = [*source.findings, *decoded.findings, *_describe_storage(source, decoded, config)]
    findings += check_errors(source, decoded.errors, config.max_corrupt)
    about_pixels = decoded.findings
    source, decoded, unreadable = _drop_unusable(source, decoded)
    assigned = None if config.split_from is None else AssignedSplits.read(Path(config.split_from))
    try:
        drawn = split.draw_splits(
            split.SplitInput(
                name=source.name,
                class_names=source.class_names,
                ids=source.ids,
                digests_N=decoded.digests_N,
                labels_N=source.labels_N,
                supplied_N=source.splits_N,
                groups=source.groups,
                hashes_N=decoded.hashes_N,
                assigned=assigned,
                label_sets_MK=source.encode_label_sets(),
            ),
            validation=config.validation,
            test=config.test,
            seed=config.split_seed,
            folds=config.folds,
            fold=config.fold,
        )
    except DataError as error:  # images that are nearly black may all look alike
        raise DataError("; ".join([str(error), *(finding.rstrip(".") for finding in about_pixels)])) from None
    label_sets_MK = source.encode_label_sets()
    schema, columns_NF, about_columns = _encode_columns(source, config, drawn.splits_N == SPLITS.index("train"), schema)
    has_units = len(np.unique(drawn.units_N)) < len(drawn.units_N)
    train, validation, test = (
        _make_split(source, decoded, drawn.splits_N == n, columns_NF, drawn.units_N if has_units else None)
        for n in range(len(SPLITS))
    )
    mean, std = compute_statistics(train.images_NCHW)
    used = np.flatnonzero(drawn.splits_N != SPLITS.index("test"))
    if (larger := decode_larger(source, config, decoded, used, progress)) is not None:
        findings.append(larger.describe(train.images_NCHW.shape[-1]))
        train = larger.add_to(train, drawn.splits_N[used] == SPLITS.index("train"))
        validation = larger.add_to(validation, drawn.splits_N[used] == SPLITS.index("validation"))
    return Dataset(
        name=source.name,
        kind=source.kind or guess_image_kind(source.class_names, task),
        class_names=source.class_names,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        fit=config.fit,
        fingerprint=_fingerprint(source, decoded, drawn.splits_N, config.fit, schema),
        findings=(
            *findings,
            *about_columns,
            *(finding.text for finding in drawn.findings),
            *_check_balance(source, train),
        ),
        split_record={
            "seed": config.split_seed,
            "validation": config.validation,
            "test": config.test,
            "loans": [reassignment.as_dict() for reassignment in drawn.reassignments],
            "findings": [dataclasses.asdict(finding) for finding in drawn.findings],
            "unreadable_count": len(unreadable),
            "unreadable": unreadable[:MAX_LISTED_ERRORS],
            "compared": "names" if config.stream else "pixels",
        },
        assigned=AssignedSplits.of_images(decoded.digests_N, decoded.hashes_N, drawn.splits_N, assigned),
        task=task,
        label_sets_MK=None if label_sets_MK is None else torch.from_numpy(label_sets_MK),
        columns=schema,
    )


def choose_task(source: Source, config: DataConfig) -> Task:
    """Return what an answer is: as configured, or by the labels. ConfigError if the labels are not for that task."""
    task = ("multiclass" if source.label_sets is None else "multilabel") if config.task == "auto" else config.task
    if source.label_sets is not None and task != "multilabel":
        raise ConfigError(f"{source.name} has images of several labels: give --data.task multilabel instead of {task}")
    if config.order is not None and task != "ordinal":
        raise ConfigError("data.order is the order of grades: add --data.task ordinal, or leave it out")
    return task


def sort_grades(source: Source, order: str | None) -> Source:
    """Return the source with its classes from the lowest grade to the highest. Errors of order_grades."""
    grades = order_grades(source.name, source.class_names, order)
    numbers_K = np.array([grades.index(name) for name in source.class_names], np.int64)
    return dataclasses.replace(source, class_names=grades, labels_N=numbers_K[source.labels_N])


def compute_statistics(images_NCHW: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel in [0, 1], over all images; a flat channel's std is 1/255.

    Computed from integer sums, which are exact: the same in any order, and wherever the images are stored. Large
    images count by every fourth line (pixel_segment.summed_lines), a stream by a sample of its images.
    """
    if isinstance(images_NCHW, StreamedImages):
        sample = torch.linspace(0, len(images_NCHW) - 1, SAMPLE_IMAGES).long().unique()
        return compute_statistics(images_NCHW[sample])
    height, width = images_NCHW.shape[2:]
    lines = summed_lines(height)
    if isinstance(images_NCHW, MappedImages):
        sums_C2 = images_NCHW.sum_channels()
    else:
        summed_NCHW = images_NCHW[:, :, lines]
        block = max(1, BLOCK_VALUES // summed_NCHW[0].numel())
        sums_C2 = np.sum([sum_channels(images.numpy()).sum(0) for images in summed_NCHW.split(block)], axis=0)
    count = len(images_NCHW) * len(range(height)[lines]) * width
    mean, std = [], []
    for total, squares in sums_C2.tolist():
        mean.append(total / count / 255)
        std.append(max(math.sqrt(squares * count - total * total) / count, 1) / 255)
    return tuple(mean), tuple(std)


def _describe_storage(source: Source, decoded: DecodedImages, config: DataConfig) -> list[str]:
    """What users should know about streamed and lossy images."""
    findings = []
    if config.stream:
        findings.append(
            f"{source.name} is read as a stream: its splits are drawn by the images' names, and duplicates are not "
            "searched (classifier audit does)."
        )
    if isinstance(decoded.images_NCHW, MappedImages) and decoded.images_NCHW.is_lossy:
        findings.append("its images are cached as JPEGs of quality 95 (--data.cache_as).")
    return findings


def check_errors(source: Source, errors: dict[int, str], max_corrupt: float) -> list[str]:
    """Report images that cannot be used. DataError if there are too many."""
    if not errors:
        return []
    total, listed = len(source.labels_N), decode_all.list_errors(source, errors)
    share = len(errors) / total
    if share > max_corrupt:
        raise DataError(
            f"{source.name}: {len(errors):,} of {total:,} images ({share:.1%}, more than data.max_corrupt "
            f"{max_corrupt:.1%}) cannot be used: {listed}; replace or remove them, or raise --data.max_corrupt"
        )
    return [f"{len(errors):,} of {total:,} images cannot be used and were skipped: {listed}."]


def _encode_columns(
    source: Source, config: DataConfig, is_training_N: np.ndarray, schema: ColumnSchema | None
) -> tuple[ColumnSchema | None, Tensor | None, list[str]]:
    """Return the schema, columns_NF, and what to say about them; none without columns. Errors of learn_schema."""
    if schema is None and not source.columns:
        return None, None, []
    findings = []
    if schema is None:
        request = ColumnRequest.parse(config.columns)
        schema, findings = learn_schema(source.name, source.columns, source.ids, is_training_N, request)
    elif lacking := [name for name in schema.names if name not in source.columns]:
        findings = [f"{source.name} lacks the columns {list_few(lacking)}: all their values are missing."]
    return schema, torch.from_numpy(schema.encode_texts(source.columns, source.ids)), findings


def _drop_unusable(source: Source, decoded: DecodedImages) -> tuple[Source, DecodedImages, list[dict[str, str]]]:
    """Return source and images without those that cannot be used, and a list of these for split.json."""
    if not decoded.errors:
        return source, decoded, []
    is_usable = np.ones(len(source.labels_N), bool)
    is_usable[list(decoded.errors)] = False
    indices = np.flatnonzero(is_usable).tolist()
    usable = dataclasses.replace(
        source,
        ids=select_strings(source.ids, indices),
        labels_N=source.labels_N[indices],
        splits_N=source.splits_N[indices],
        groups=None if source.groups is None else select_strings(source.groups, indices),
        columns=source.select_columns(indices),
        images=take_images(source.images, indices),
    )
    unreadable = [{"id": source.ids[n], "reason": error} for n, error in decoded.errors.items()]
    images = select(decoded.images_NCHW, torch.tensor(indices, dtype=torch.int64))
    hashes_N = None if decoded.hashes_N is None else decoded.hashes_N[is_usable]
    usable_images = DecodedImages(images, decoded.digests_N[is_usable], {}, hashes_N, read_at=decoded.read_at)
    return usable, usable_images, unreadable


def _check_balance(source: Source, train: Split) -> list[str]:
    class_names = source.class_names
    counts_K = count_labels(train.labels_N.numpy(), len(class_names), source.encode_label_sets())
    low, high = int(counts_K.argmin()), int(counts_K.argmax())
    if counts_K[high] <= IMBALANCE_RATIO * counts_K[low]:
        return []
    return [
        f"{class_names[high]!r} has {counts_K[high]:,} training images, {class_names[low]!r} {counts_K[low]:,}: read "
        "the macro F1, and see --data.balance, --loss.class_weights and --loss.adjustment."
    ]


def _make_split(
    source: Source,
    decoded: DecodedImages,
    in_split_N: np.ndarray,
    columns_NF: Tensor | None,
    units_N: np.ndarray | None,
) -> Split:
    indices = np.flatnonzero(in_split_N)
    return Split(
        images_NCHW=select(decoded.images_NCHW, torch.from_numpy(indices)),
        labels_N=torch.from_numpy(source.labels_N[in_split_N]),
        ids=select_strings(source.ids, indices.tolist()),
        columns_NF=None if columns_NF is None else columns_NF[in_split_N],
        units_N=None if units_N is None else torch.from_numpy(units_N[in_split_N].astype(np.int64)),
    )


def _fingerprint(
    source: Source, decoded: DecodedImages, splits_N: np.ndarray, fit: str, schema: ColumnSchema | None
) -> str:
    shape = decoded.images_NCHW.shape[1:]
    hasher = hashlib.sha256(json.dumps([source.class_names, fit, shape]).encode())
    hasher.update(decoded.digests_N.tobytes())
    hasher.update(source.labels_N.astype("<i8").tobytes())
    if source.label_sets is not None:
        hasher.update(json.dumps(source.label_sets).encode())
    hasher.update(splits_N.tobytes())
    if schema is not None:
        hasher.update(json.dumps(schema.as_dict()).encode())
        for name, cells in source.columns.items():
            hasher.update(json.dumps([name, *cells]).encode())
    return hasher.hexdigest()[:16]
