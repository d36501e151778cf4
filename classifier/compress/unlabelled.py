"""Images without labels, for a student: a teacher gives them labels, and probabilities at every step."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from classifier.bundle.bundle import Bundle
from classifier.bundle.image_reader import ImageReader
from classifier.config.sections import DataConfig
from classifier.data.columns.schema import IMAGE
from classifier.data.dataset import Dataset, Split
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.images.arrays import concatenate
from classifier.data.readers.tree import DiskFolder
from classifier.errors import DataError
from classifier.storage.atomic import retry_io, write_tensors
from classifier.training.distillation import Teacher

# Images decoded at a time.
_PART = 256
FILE = "unlabelled.safetensors"


def save_unlabelled(path: Path, about: Bundle, teacher: Teacher, config: DataConfig, folder: Path) -> int:
    """Decode the images in a folder, and save them with the teacher's labels in the run's folder; return how many.

    A resumed run then learns from the same. config: whose limits hold. DataError if there are no images, or one cannot
    be read.
    """
    if not path.is_dir():
        raise DataError(f"--unlabelled {path} is not a folder of images")
    files = list(DiskFolder(path).walk_sorted_images())
    if not files:
        raise DataError(f"--unlabelled {path} has no images")
    spec = ImageSpec(about.size, about.channels, about.fit, config.max_pixels)
    reader = ImageReader(spec, config.max_bytes, config.max_seconds)
    images, labels = [], []
    for start in range(0, len(files), _PART):
        pixels = reader.decode([file for _, file in files[start : start + _PART]])
        for result in pixels:
            if isinstance(result, DataError):
                raise DataError(f"{result}: remove it from --unlabelled")
        images.append(torch.from_numpy(np.stack(pixels)))
        labels.append(teacher.predict(images[-1], 1.0).argmax(1).cpu())
    tensors = {"images": torch.cat(images), "labels": torch.cat(labels)}
    retry_io(lambda: write_tensors(tensors, folder / FILE, format="pt"), folder / FILE)
    return len(files)


def add_unlabelled(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with the saved images among those of the training."""
    from safetensors.torch import load_file

    tensors = load_file(folder / FILE)
    train = dataset.train
    ids = (*train.ids, *(f"unlabelled {n}" for n in range(len(tensors["labels"]))))
    images_NCHW = concatenate(train.images_NCHW, tensors["images"])
    labels_N = torch.cat([train.labels_N, tensors["labels"].long()])
    columns_NF = train.columns_NF
    if columns_NF is not None:  # those images have none
        missing_MF = columns_NF.new_full((len(tensors["labels"]), columns_NF.shape[1]), torch.nan)
        missing_MF[:, IMAGE] = 1
        columns_NF = torch.cat([columns_NF, missing_MF])
    units_N = train.units_N
    if units_N is not None:  # each of those stands alone
        first = int(units_N.max()) + 1
        units_N = torch.cat([units_N, torch.arange(first, first + len(tensors["labels"]))])
    return dataclasses.replace(dataset, train=Split(images_NCHW, labels_N, ids, columns_NF, units_N=units_N))
