"""The images of data.unlabelled, decoded as those of the data set are, without copies of held-out images."""

import dataclasses
import hashlib

import numpy as np
import torch

from classifier.config.sections import DataConfig
from classifier.data.build import check_errors
from classifier.data.dataset import Dataset, Split
from classifier.data.decode_all import decode_to
from classifier.data.image_decoder import Progress
from classifier.data.images.arrays import select
from classifier.data.readers.compact import select_strings
from classifier.data.split_names import SPLITS
from classifier.data.unlabelled.source import open_unlabelled
from classifier.errors import ConfigError, DataError

NO_LABEL = -1


def add_unlabelled(dataset: Dataset, config: DataConfig, progress: Progress | None = None) -> Dataset:
    """Return the data set with the images of config.unlabelled, at its size and channels; their labels are -1.

    Images with the content or the pixels of a validation or test image are left out, so that scores stay honest.
    ConfigError with data.stream; DataError if there are no images, too many cannot be read, or none remain.
    """
    if config.stream:
        raise ConfigError("data.unlabelled cannot be used with data.stream: leave one of them out")
    source = open_unlabelled(config)
    decoded = decode_to(source, config, (dataset.size, dataset.channels), progress)
    findings = check_errors(source, decoded.errors, config.max_corrupt)
    is_used_M = np.ones(len(source.ids), bool)
    is_used_M[list(decoded.errors)] = False
    if dataset.assigned is not None:
        splits_M = dataset.assigned.recall(decoded.digests_N, decoded.hashes_N)
        is_held_out_M = np.isin(splits_M, [SPLITS.index("validation"), SPLITS.index("test")])
        if held_out := int((is_held_out_M & is_used_M).sum()):
            findings.append(f"{held_out:,} of the unlabelled images are validation or test images, and were left out.")
        is_used_M &= ~is_held_out_M
    indices = np.flatnonzero(is_used_M)
    if len(indices) == 0:
        raise DataError(
            f"data.unlabelled: all images of {source.name} are validation or test images of {dataset.name}: give "
            "others, or leave it out"
        )
    findings.append(f"{dataset.name} is learned with {len(indices):,} unlabelled images of {source.name}.")
    unlabelled = Split(
        images_NCHW=select(decoded.images_NCHW, torch.from_numpy(indices)),
        labels_N=torch.full((len(indices),), NO_LABEL, dtype=torch.int64),
        ids=select_strings(source.ids, indices.tolist()),
    )
    return dataclasses.replace(
        dataset,
        unlabelled=unlabelled,
        unlabelled_fingerprint=hashlib.sha256(decoded.digests_N[indices].tobytes()).hexdigest()[:16],
        findings=(*dataset.findings, *findings),
    )
