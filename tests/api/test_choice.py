"""What the recipe auto measures before it chooses."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import classifier
from classifier.api import choice
from classifier.config import auto_recipe
from classifier.config.backbones import Backbone
from classifier.errors import ClassifierError, DivergedError
from classifier.models import hub
from tests.conftest import draw_photos
from tests.fake_hub import fill_cache, find_closed_port, serve_hub, swallow, use_hub, write_weights


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


def test_a_network_from_scratch_is_compared_on_the_images_of_the_probe_where_many_validate_too(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(choice, "LOOK_PASSES", 1500)
    letters, lines = draw_letters(tmp_path / "letters", classes=12, count=40), list[str]()
    choice.choose({"data.path": str(letters)}, say=lines.append)
    assert any("that were held out, and" in line for line in lines), lines


def test_settings_of_the_data_are_heeded(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", {"red": 60, "green": 60, "blue": 60})
    chosen = choice.choose({"data.path": str(photos), "data.test": 0.5, "model.name": "cnn"})
    assert (chosen.kind, chosen.experiment.data.batch) == ("scratch", 32)
    assert "images of 3 classes, 24 pixels: cnn from scratch" in chosen.reason
    assert 60 < int(chosen.reason.split()[2]) < 90
    with pytest.raises(ClassifierError, match="nowhere"):
        choice.choose({"data.path": str(tmp_path / "nowhere")})


# Without a comparison with networks from scratch.
PROBE: dict[str, Any] = {"model.probe": True}


@pytest.fixture
def backbones(tmp_path: Path, monkeypatch) -> Path:
    """The cache of a hub that cannot be reached; the installed backbone knows nothing, a tiny better one is missing."""
    poor, better = (Backbone(f"timm/{name}.r160_in1k", multiple=16) for name in ("test_vit2", "test_vit"))
    weights = write_weights(poor.name, tmp_path / "poor.safetensors", scale=0.0)
    fill_cache(tmp_path / "cache", poor.name, weights)
    use_hub(monkeypatch, find_closed_port(), tmp_path / "cache")
    measure = choice.measure_facts
    monkeypatch.setattr(choice, "measure_facts", lambda data: dataclasses.replace(measure(data), backbone=poor))
    monkeypatch.setattr(auto_recipe, "BETTER", (better,))
    return tmp_path / "cache"


def test_a_better_backbone_of_the_hub_is_measured_chosen_and_served(tmp_path: Path, backbones: Path, monkeypatch):
    photos = draw_photos(tmp_path / "photos", {"red": 60, "green": 60, "blue": 60})
    weights = write_weights("timm/test_vit.r160_in1k", tmp_path / "better.safetensors")
    with serve_hub({"timm/test_vit.r160_in1k": weights}) as address:
        use_hub(monkeypatch, address, backbones)
        run = classifier.train(photos, out=tmp_path / "runs", progress=False, **PROBE)
    assert run.experiment.model.name == "timm/test_vit.r160_in1k"
    assert run.experiment.data.size == 160
    assert run.test().accuracy > 0.9
    assert classifier.load(run).predict([photos / "green" / "001.png"])[0].class_name == "green"
    monkeypatch.setattr(choice, "BACKBONES_SHARE", 0)
    lines: list[str] = []
    chosen = choice.choose({"data.path": str(photos), **PROBE}, say=lines.append)
    assert "test_vit.r160" not in " ".join(lines), "one for which there is no time"
    assert chosen.experiment.model.name != "timm/test_vit.r160_in1k"


def test_without_a_network_one_line_and_few_seconds_are_lost(tmp_path: Path, backbones: Path, monkeypatch):
    photos = draw_photos(tmp_path / "photos", {"red": 60, "green": 60, "blue": 60})
    seconds = {}
    with swallow() as address:
        for name in ("none", find_closed_port(), address):
            use_hub(monkeypatch, name, backbones)
            monkeypatch.setattr(hub, "is_offline", lambda name=name: name == "none")
            lines, started = list[str](), time.monotonic()
            choice.choose({"data.path": str(photos), **PROBE}, say=lines.append)
            seconds[name] = time.monotonic() - started
            about_hub = [line for line in lines if "hub" in line]
            assert about_hub == ["  no better backbone: the Hugging Face hub cannot be reached"] * (name != "none")
    assert max(seconds.values()) - min(seconds.values()) < 5


def test_a_network_that_diverges_leaves_the_probe(tmp_path: Path, monkeypatch):
    def diverge(*_: Any):
        raise DivergedError("the loss is not finite")
        yield

    monkeypatch.setattr(choice, "LOOK_PASSES", 1000)
    monkeypatch.setattr(choice, "fit", diverge)
    letters, lines = draw_letters(tmp_path / "letters", classes=20, count=12), list[str]()
    chosen = choice.choose({"data.path": str(letters)}, say=lines.append)
    assert chosen.kind == "probe", lines
    assert "from scratch, " in lines[1]
    assert ": 0.0% on" in lines[1]
