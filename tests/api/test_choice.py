"""What the recipe auto measures before it chooses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from classifier.api import choice
from classifier.errors import ClassifierError
from tests.conftest import draw_photos


def draw_letters(folder: Path, classes: int, count: int, side: int = 28) -> Path:
    """Small rotated letters on noise, which a backbone trained on photographs hardly tells apart."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"letter-{label}").mkdir(parents=True)
        for n in range(count):
            image = Image.new("L", (side, side), 255)
            font = ImageFont.load_default(int(rng.integers(14, 24)))
            at = int(rng.integers(1, 8)), int(rng.integers(1, 8))
            ImageDraw.Draw(image).text(at, chr(ord("A") + label), 0, font)
            pixels = np.asarray(image.rotate(float(rng.uniform(-25, 25)), fillcolor=255)) + rng.normal(
                0, 30, (side, side)
            )
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"letter-{label}" / f"{n}.png")
    return folder


def test_photographs_get_a_probe_whose_features_are_kept(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", {"red": 60, "green": 60, "blue": 60})
    lines: list[str] = []
    chosen = choice.choose({"data.path": str(photos)}, features=tmp_path / "features", say=lines.append)
    assert (chosen.kind, chosen.experiment.train.epochs) == ("probe", 1)
    (line,) = lines
    assert "a linear probe of timm/tf_efficientnet_lite0 at 160 pixels: 100.0% on" in line
    assert [file.suffix for file in (tmp_path / "features").iterdir()] == [".safetensors"]


def test_letters_are_learned_from_scratch_where_that_is_measured_to_be_better(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(choice, "LOOK_PASSES", 10_000)
    letters, lines = draw_letters(tmp_path / "letters", classes=20, count=12), list[str]()
    chosen = choice.choose({"data.path": str(letters)}, say=lines.append)
    assert [line.split()[0] for line in lines] == ["a", "from"], lines
    assert chosen.kind == "scratch", lines


def test_settings_of_the_data_are_heeded(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", {"red": 60, "green": 60, "blue": 60})
    chosen = choice.choose({"data.path": str(photos), "data.test": 0.5, "model.name": "cnn"})
    assert (chosen.kind, chosen.experiment.data.batch) == ("scratch", 32)
    assert "images of 3 classes, 24 pixels: cnn from scratch" in chosen.reason
    assert 60 < int(chosen.reason.split()[2]) < 90
    with pytest.raises(ClassifierError, match="nowhere"):
        choice.choose({"data.path": str(tmp_path / "nowhere")})
