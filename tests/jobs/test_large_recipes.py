"""Recipes for large sets as commands, on small WebDataset shards: they start, train and are forecast."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.config.large_recipes import LARGE_RECIPES
from tests.config.test_large_recipes import INSTALLED
from tests.data.faults import encoded
from tests.data.readers.test_archive import pack_tar

SMALL = ("--data.size", "64", "--data.batch", "4", "--optimizer.accumulate", "2", "--data.cache", "none")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of 40 images in 3 classes, each of its own colour with noise."""
    folder, rng = tmp_path / "shards", np.random.default_rng(0)
    folder.mkdir()
    for first in (0, 40, 80):
        files: dict[str, bytes] = {}
        for n in range(first, first + 40):
            pixels = rng.integers(0, 120, (70, 80, 3), dtype=np.uint8)
            pixels[:, :, n % 3] += 120
            files |= {f"{n:05d}.jpg": encoded(Image.fromarray(pixels), "jpeg"), f"{n:05d}.cls": str(n % 3).encode()}
        pack_tar(folder / f"train-{first:06d}.tar", files)
    return folder


def test_a_stream_of_shards_is_tried(verb, shards):
    done = verb("train", shards, "--recipe", "imagenet-resnet50", "--dry_run", "--data.stream", *SMALL)
    assert done.code == 0, done.err
    assert "timm/resnet50, 100 epochs of batch 4 x 2 at 44 pixels, lamb lr 0.008" in done.out
    assert "about" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_RECIPES)
def test_each_recipe_is_forecast_and_trains(verb, shards, name):
    words = [word for setting, value in INSTALLED.get(name, {}).items() for word in (f"--{setting}", value)]
    planned = verb("plan", shards, "--recipe", name, "--kind", "g5.xlarge", "--up_to", "2", *SMALL, *words)
    assert planned.code == 0, planned.err
    assert planned.result["load"]["batch"] == 8
    done = verb("train", shards, "--recipe", name, "--train.epochs", "2", *SMALL, *words)
    assert done.code == 0, done.err
    assert done.result["status"] == "finished"
