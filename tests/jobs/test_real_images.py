"""Slow: real photographs and real clothes, by the commands of the README, held to what it says of them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

pytestmark = pytest.mark.slow

# Photographs that scikit-image brings along; each becomes a class of cuttings.
PHOTOGRAPHS = ("astronaut", "brick", "chelsea", "coffee", "grass", "hubble_deep_field", "ihc", "motorcycle_left")
FORMATS = (("png", "RGB"), ("jpg", "RGB"), ("webp", "RGB"), ("gif", "P"), ("png", "RGBA"), ("tif", "RGB"), ("bmp", "L"))


def cut(photograph: Image.Image, side: str, count: int, into: Path, rng: np.random.Generator) -> None:
    """Cuttings of many sizes, shapes and formats from the left or the right half, and turned a little in brightness."""
    into.mkdir(parents=True)
    width, height = photograph.size
    start, end = (0, width // 2) if side == "left" else (width // 2, width)
    for i in range(count):
        w, h = map(int, rng.integers(48, 129, 2))
        x, y = int(rng.integers(start, max(start + 1, end - w))), int(rng.integers(0, max(1, height - h)))
        image = photograph.crop((x, y, min(x + w, end), y + h))
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
        ending, mode = FORMATS[i % len(FORMATS)]
        image.convert(mode).save(into / f"{i:03d}.{ending}")


def test_a_folder_of_mixed_sizes_and_formats(verb, tmp_path):
    """Trained on the left halves of the photographs, tested on the right halves: no test pixel was seen."""
    import skimage

    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        photograph = Image.open(path).convert("RGB")
        cut(photograph, "left", 60, tmp_path / "photos" / "train" / name, rng)
        cut(photograph, "right", 30, tmp_path / "photos" / "test" / name, rng)
    done = verb("train", "--data.path", "photos", "--name", "cuttings", "--train.epochs", "40")
    assert done.code == 0, done.err
    assert verb("evaluate", "runs/cuttings").result["test"]["accuracy"] > 0.9


def test_batch_norm_on_two_workers_is_as_good_as_on_one(verb, tmp_path):
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
    if installed.exists():
        return installed
    folder = tmp_path_factory.mktemp("clothes")
    try:
        subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Fashion-MNIST is neither installed nor to be fetched by apt-get")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return folder / "usr" / "share" / "datasets" / "fashion-mnist"


def test_fashion_quick(verb, clothes):
    done = verb("train", "--data.path", clothes, "--recipe", "fashion-quick", "--name", "quick")
    assert done.code == 0, done.err
    assert done.result["dataset"]["counts"]["test"] == 10_000
    assert verb("evaluate", "runs/quick").result["test"]["accuracy"] > 0.92
