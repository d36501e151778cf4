"""Images of unknown classes are found in any folder, with classes or without."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.config.sections import DataConfig
from classifier.errors import DataError
from jobs.steps.robustness import _load_unlike


def paint(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(path)


@pytest.mark.parametrize(
    "names", [("a.png", "b.png"), ("x/a.png", "b.png"), ("x/a.png", "y/b.png"), ("x/a.png", "x/b.png")]
)
def test_images_of_any_folder_are_loaded(names: tuple[str, ...], tmp_path: Path) -> None:
    paint(*(tmp_path / name for name in names))
    split = _load_unlike(DataConfig(path=str(tmp_path), size=8, channels=3, cache=None))
    assert sorted(split.ids) == sorted(names)
    assert split.images_NCHW[:].shape == (2, 3, 8, 8)


def test_unusable_images_are_left_out_or_refused(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    config = DataConfig(path=str(tmp_path), size=8, channels=3, cache=None)
    assert sorted(_load_unlike(dataclasses.replace(config, max_corrupt=0.5)).ids) == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"data\.max_corrupt"):
        _load_unlike(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        _load_unlike(dataclasses.replace(config, path=str(tmp_path / "empty")))
