"""Slow: real photographs and Fashion-MNIST, with the commands and scores of the README."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageEnhance

from classifier.bundle import bundle
from classifier.metrics.calibration import apply_temperature, fit_temperature
from classifier.metrics.decisions import Calibration
from classifier.metrics.scores import compute_scores
from classifier.report import run_page
from tests.benchmarks.sets import fetch_debian
from tests.browser import open_page

pytestmark = pytest.mark.slow

# Photographs that come with scikit-image; crops of each become a class.
PHOTOGRAPHS = ("astronaut", "brick", "chelsea", "coffee", "grass", "hubble_deep_field", "ihc", "motorcycle_left")
SECTIONS = ["Data", "Training", "Confusion", "Classes", "All scores", "Calibration", "Hard examples"]
SECTIONS += ["Integrity checks", "Commands"]
FORMATS = (("png", "RGB"), ("jpg", "RGB"), ("webp", "RGB"), ("gif", "P"), ("png", "RGBA"), ("tif", "RGB"), ("bmp", "L"))


def save_crops(photograph: Image.Image, into: Path, name: str, rng: np.random.Generator) -> None:
    """Save crops of many sizes, shapes and formats, one per 64-pixel tile; every third tile is for the test split."""
    width, height = photograph.size
    tiles = [(x, y) for y in range(0, height - 63, 64) for x in range(0, width - 63, 64)]
    for i, (x, y) in enumerate(tiles[:90]):
        w, h = map(int, rng.integers(40, 65, 2))
        left, top = x + int(rng.integers(0, 65 - w)), y + int(rng.integers(0, 65 - h))
        image = photograph.crop((left, top, left + w, top + h)).resize((w * (1 + i % 2), h * (1 + i % 2)))
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
        ending, mode = FORMATS[i % len(FORMATS)]
        path = into / ("test" if i % 3 == 0 else "train") / name / f"{i:03d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert(mode).save(path)


def test_folder_of_mixed_sizes_and_formats(verb, tmp_path):
    """Test images are other parts of the photographs than training images."""
    import skimage

    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        save_crops(Image.open(path).convert("RGB"), tmp_path / "photos", name, rng)
    done = verb("train", "--data.path", "photos", "--name", "crops")
    assert done.code == 0, done.err
    assert verb("evaluate", "runs/crops").result["test"]["accuracy"] > 0.85
    check_report(tmp_path / "runs" / "crops", tmp_path)


def test_batch_norm_on_two_workers_is_as_accurate_as_on_one(verb, tmp_path):
    """Each worker normalises by its own half of the batch: not the same weights, but as good ones."""
    for count in (1, 2):
        done = verb("train", "--recipe", "digits", "--workers.count", count, "--name", f"by{count}")
        assert done.code == 0, done.err
    one, two = (verb("evaluate", f"runs/by{count}").result["test"] for count in (1, 2))
    assert two["accuracy"] == pytest.approx(one["accuracy"], abs=0.01)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory) -> Path:
    """Fashion-MNIST as Debian packages it: what is installed, or fetched."""
    installed = Path("/usr/share/datasets/fashion-mnist")
    try:
        return fetch_debian("dataset-fashion-mnist", installed, tmp_path_factory.mktemp("clothes"))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Fashion-MNIST is neither installed nor to be fetched by apt-get")


def check_report(run: Path, folder: Path) -> None:
    """The report of a tested run is written in seconds, small, complete, and readable on a phone and a desktop."""
    began = time.monotonic()
    page = run_page.write(run).read_text()
    assert time.monotonic() - began < 20
    assert len(page) < 5_000_000
    for width in (380, 1200):
        opened = open_page(page, width, folder)
        opened.check(width)
        assert opened.headings == SECTIONS


def compute_coverage(run: Path) -> tuple[float, float]:
    """Stated and measured coverage of a run's prediction sets on its test images."""
    calibration = bundle.read(run).calibration
    assert calibration is not None
    read = pq.read_table(run / "predictions.parquet")
    probabilities = torch.tensor(read["probabilities"].to_pylist())
    labels = torch.tensor(read["label"].to_pylist())
    covered = Calibration.from_dict(calibration).prediction_sets(probabilities)[range(len(labels)), labels]
    return calibration["coverage"], float(covered.mean())


def check_temperature(run: Path) -> None:
    """A temperature fitted on validation images halves the calibration error of an overconfident model."""
    predictions = {}
    for split, name in (("validation", "validation.parquet"), ("test", "predictions.parquet")):
        read = pq.read_table(run / name)
        overconfident_NK = apply_temperature(
            torch.tensor(read["probabilities"].to_pylist()).log(), 1 / 3
        )  # logits three times as large
        predictions[split] = overconfident_NK, torch.tensor(read["label"].to_pylist())
    temperature = fit_temperature(*predictions["validation"])
    overconfident_NK, labels_N = predictions["test"]
    before, after = (
        compute_scores(one.exp(), labels_N)["ece"]
        for one in (overconfident_NK, apply_temperature(overconfident_NK, temperature))
    )
    print(f"calibration error {before:.2%}, after a temperature of {temperature:.2f} {after:.2%}")
    assert after < before / 2


def test_clothes_are_out_of_distribution_for_digits(verb, clothes):
    done = verb("train", "--name", "digits")
    assert done.code == 0, done.err
    robust = verb("robust", done.folder, "--unlike", clothes, "--images", "300", "--attacks", "false")
    assert robust.code == 0, robust.err
    auroc = json.loads((robust.folder / "robustness.json").read_text())["unlike"]["auroc"]
    print(f"clothes detected by a model of digits, AUROC: {auroc}")
    assert auroc["layers"] >= 0.95


def test_digits_are_cross_validated_within_two_minutes(verb):
    began = time.monotonic()
    done = verb("crossval", "--folds", "5")
    assert done.code == 0, done.err
    print(f"{time.monotonic() - began:.0f} s, {done.result['folds']['accuracy']}")
    assert time.monotonic() - began < 120
    assert done.result["folds"]["accuracy"]["mean"] > 0.98


def test_fashion_quick(verb, clothes, tmp_path):
    done = verb("train", "--data.path", clothes, "--recipe", "fashion-quick", "--name", "quick")
    assert done.code == 0, done.err
    assert done.result["dataset"]["counts"]["test"] == 10_000
    assert verb("evaluate", "runs/quick").result["test"]["accuracy"] > 0.92
    check_report(tmp_path / "runs" / "quick", tmp_path)
    stated, measured = compute_coverage(tmp_path / "runs" / "quick")
    print(f"coverage {measured:.2%}, stated {stated:.2%}")
    assert measured == pytest.approx(stated, abs=0.015)
    check_temperature(tmp_path / "runs" / "quick")


def test_learning_curve_of_half_the_images_predicts_the_error_of_all(verb, clothes):
    """Within 15 % of it."""
    words = ("--data.path", clothes, "--recipe", "fashion-quick")
    whole = verb("train", *words, "--name", "whole").result["validation"]["accuracy"]
    curve = verb("curve", *words, "--sizes", "5", "--largest", "0.5", "--name", "half", timeout=1200)
    assert curve.code == 0, curve.err
    images = curve.result["dataset"]["counts"]["train"]
    predicted = curve.result["curve"]["predicted"][str(images)]
    print(f"error predicted {1 - predicted:.2%}, measured {1 - whole:.2%}")
    assert 1 - predicted == pytest.approx(1 - whole, rel=0.15)
