"""Small images, all different, for tests of the readers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Paint = Callable[[Path], Path]


@pytest.fixture
def paint() -> Paint:
    """paint(path) writes a new image of 12 x 10 pixels there, in the format of its extension."""
    random = np.random.default_rng(7)

    def paint(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
        return path

    return paint


@pytest.fixture
def photos(paint: Paint, tmp_path: Path) -> Path:
    """A folder of two classes with 20 images each."""
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        for number in range(20):
            paint(folder / name / f"{number:02d}.png")
    return folder
