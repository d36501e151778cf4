"""Images to pretrain on, with or without labels: those of a data set but for its test split, or all of a folder."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.build import check_errors, compute_statistics
from classifier.data.decode_all import decode_source
from classifier.data.image_decoder import Progress
from classifier.data.images.arrays import Images, concatenate, select
from classifier.data.readers.source import Source, guess_image_kind
from classifier.data.unlabelled.source import open_images
from classifier.errors import DataError

MIN_IMAGES = 8


@dataclass(frozen=True, eq=False)
class PretrainingImages:
    """N uint8 images, and what is known of them. kind: as Dataset.kind. labels_N: for the monitor alone, if known."""

    name: str
    kind: str
    images_NCHW: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    findings: tuple[str, ...]
    labels_N: Tensor | None = None


def read_images(config: DataConfig, progress: Progress | None = None) -> PretrainingImages:
    """Read a data set without its test split or, where the images have no labels, a folder of images at any depth.

    DataError if there are too few images, or if they cannot be read.
    """
    try:
        is_labelled, reason = len(data.open_source(config).class_names) > 1, "of one class"
    except DataError as error:
        is_labelled, reason = False, str(error)
    if not is_labelled:
        return _read_unlabelled(open_images(config.path, config), reason, config, progress)
    dataset = data.load(config, progress)
    images_NCHW = concatenate(dataset.train.images_NCHW, dataset.validation.images_NCHW)
    has_classes = dataset.task in ("multiclass", "nested", "ordinal")
    left_out = 0 if dataset.test is None else len(dataset.test)
    findings = [f"labels are not learned from{', and decide only how good the features are' if has_classes else ''}."]
    if left_out:
        findings.append(f"{left_out:,} test images are left out.")
    return _check(
        PretrainingImages(
            name=dataset.name,
            kind=dataset.kind,
            images_NCHW=images_NCHW,
            mean=dataset.mean,
            std=dataset.std,
            fingerprint=dataset.fingerprint,
            findings=(*dataset.findings, *findings),
            labels_N=torch.cat([dataset.train.labels_N, dataset.validation.labels_N]) if has_classes else None,
        )
    )


def _read_unlabelled(source: Source, reason: str, config: DataConfig, progress: Progress | None) -> PretrainingImages:
    """reason: why the images are read without labels, and none of them as test images."""
    decoded = decode_source(source, config, progress)
    about = f"all images of {source.name} are learned from, without labels ({reason})."
    findings = (*decoded.findings, *check_errors(source, decoded.errors, config.max_corrupt), about)
    usable = [n for n in range(len(source.labels_N)) if n not in decoded.errors]
    images_NCHW = select(decoded.images_NCHW, torch.tensor(usable, dtype=torch.int64))
    mean, std = compute_statistics(images_NCHW)
    hasher = hashlib.sha256(f"{config.fit} {tuple(images_NCHW.shape[1:])}".encode())
    hasher.update(decoded.digests_N[usable].tobytes())
    return _check(
        PretrainingImages(
            name=source.name,
            kind=source.kind or guess_image_kind(source.class_names, "multiclass"),
            images_NCHW=images_NCHW,
            mean=mean,
            std=std,
            fingerprint=hasher.hexdigest()[:16],
            findings=findings,
        )
    )


def _check(images: PretrainingImages) -> PretrainingImages:
    if len(images.images_NCHW) < MIN_IMAGES:
        raise DataError(
            f"{images.name} has {len(images.images_NCHW)} images to learn from: give at least {MIN_IMAGES}, better "
            "thousands"
        )
    return images
