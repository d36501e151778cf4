"""Larger copies of the training images, so that random crops show real pixels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifier import data
from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data import loader
from classifier.data.dataset import Dataset
from classifier.runtime import counter_rng
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from jobs.launch.shared_dataset import SharedDataset

# Crops of half of the area at least, and nothing else.
CROPS = {"augment.policy": "none", "augment.crop": 0.5}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of 100 x 80 pixels in two classes: stripes of two pixels, across or along, each slightly different."""
    folder = tmp_path_factory.mktemp("stripes")
    for name in ("across", "along"):
        (folder / name).mkdir()
        for number in range(15):
            lines = np.arange(100) // 2 % 2 * 200
            pixels = np.tile(lines, (80, 1)) if name == "along" else np.tile(lines[:80, None], (1, 100))
            Image.fromarray((pixels + 3 * number).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def load(folder: Path, **settings: object) -> Dataset:
    return data.load(DataConfig(path=str(folder), size=32, cache=None, **settings))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("scale", "side"), [(1.0, None), (1.25, 40), (2.0, 64), (4.0, 80)])
def test_training_images_are_larger_but_no_larger_than_they_are(stripes: Path, scale: float, side: int | None) -> None:
    dataset = load(stripes, crop_scale=scale)
    for split in (dataset.train, dataset.validation):
        assert split.images_NCHW.shape[1:] == (1, 32, 32)
        assert side == (None if split.larger_NCHW is None else split.larger_NCHW.shape[-1])
    assert dataset.test.larger_NCHW is None
    assert [f"{side} pixels" in finding for finding in dataset.findings] == ([] if side is None else [True])


def test_larger_images_belong_to_the_same_files(stripes: Path) -> None:
    dataset = load(stripes, crop_scale=4.0)
    for split in (dataset.train, dataset.validation, dataset.train.take(torch.tensor([3, 1]))):
        assert split.larger_NCHW is not None
        for n, id_ in enumerate(split.ids):
            pixels = np.asarray(Image.open(stripes / id_).crop((10, 0, 90, 80)))
            assert np.array_equal(split.larger_NCHW[n : n + 1].numpy()[0, 0], pixels)


def test_crops_keep_detail(stripes: Path) -> None:
    dataset = load(stripes, crop_scale=4.0)
    config = dataclasses.replace(Experiment().override_all(CROPS).augment)
    config = policy.resolve(config, kind=dataset.kind, channels=1, size=32)
    positions_N = torch.arange(len(dataset.train))

    def crop(images_NCHW: torch.Tensor) -> torch.Tensor:
        return policy.augment(images_NCHW, config, key=counter_rng.key(0, 0), positions_N=positions_N, size=32).float()

    assert dataset.train.larger_NCHW is not None
    plain_NCHW, detailed_NCHW = crop(dataset.train.images_NCHW[:]), crop(dataset.train.larger_NCHW[:])
    assert plain_NCHW.shape == detailed_NCHW.shape == (len(positions_N), 1, 32, 32)
    # Stripes of 4 pixels in 80 are finer than 32 pixels show, but not in a crop.
    assert detailed_NCHW.std() > 1.3 * plain_NCHW.std()


def test_a_stream_reads_them_in_the_same_order(stripes: Path) -> None:
    plain, larger = (load(stripes, crop_scale=scale, stream=True).train for scale in (1.0, 4.0))
    batches = [[*loader.batches(split, batch=8, seed=3, epoch=1)] for split in (plain, larger)]
    for small, large in zip(*batches, strict=True):
        assert torch.equal(small.indices_N, large.indices_N)
        assert large.images_NCHW.shape[1:] == (1, 80, 80)
        assert small.images_NCHW.shape[1:] == (1, 32, 32)
    evaluated = next(loader.evaluation_batches(larger, batch=8))
    assert evaluated.images_NCHW.shape[1:] == (1, 32, 32)


def test_training_and_refit_use_them(stripes: Path) -> None:
    settings = {"data.size": 32, "data.crop_scale": 2.0, "data.batch": 8, "train.epochs": 1, "model.name": "cnn"}
    base = Experiment().override_all(CROPS | settings | {"data.path": str(stripes), "data.cache": None})
    dataset = data.load(base.data)
    experiment = resolve(base, dataset)
    plain = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, larger_NCHW=None))
    losses = [next(iter(fit(experiment, one))).train_loss for one in (dataset, plain, dataset)]
    assert losses[0] == losses[2] != losses[1]
    merged = dataset.merge_validation(experiment)
    assert merged.train.larger_NCHW is not None
    assert len(merged.train.larger_NCHW) == len(dataset.train) + len(dataset.validation)


@pytest.mark.parametrize("is_cached", [False, True])
def test_trials_share_them(stripes: Path, tmp_path: Path, is_cached: bool) -> None:
    config = DataConfig(path=str(stripes), size=32, crop_scale=2.0, cache=str(tmp_path) if is_cached else None)
    dataset = data.load(config)
    opened = SharedDataset.from_dataset(dataset, config).open()
    assert dataset.train.larger_NCHW is not None
    assert opened.train.larger_NCHW is not None
    assert torch.equal(opened.train.larger_NCHW[:], dataset.train.larger_NCHW[:])
    assert torch.equal(opened.test.images_NCHW[:], dataset.test.images_NCHW[:])
