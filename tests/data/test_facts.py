"""Facts about a data set: counts after the splits are drawn, the common side, letters and digits."""

from pathlib import Path

import pytest
from PIL import Image

from classifier.config.auto_recipe import Facts
from classifier.config.sections import DataConfig
from classifier.data.facts import measure_facts
from classifier.errors import DataError


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    for n in range(count):
        Image.new("RGB", size, (n, 0, 0)).save(folder / f"{n}.png")


def test_images_for_training_are_those_that_no_split_takes(tmp_path: Path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "plain" / name, 10, (40, 30))
        write_images(tmp_path / "split" / "train" / name, 10, (40, 30))
        write_images(tmp_path / "split" / "test" / name, 5, (40, 30))
    plain = measure_facts(DataConfig(path=str(tmp_path / "plain"), size=8))
    assert plain == Facts(images=14, classes=2, side=30, validation=2)
    assert measure_facts(DataConfig(path=str(tmp_path / "split"))).images == 18
    for n in range(30):
        write_images(tmp_path / "plain" / f"single{n}", 1, (40, 30))
    assert measure_facts(DataConfig(path=str(tmp_path / "plain"))) == Facts(
        images=44, classes=32, side=30, validation=2, imbalance=10.0
    )
    digits = measure_facts(DataConfig(path="digits"))
    assert 1 < digits.imbalance < 1.1
    assert digits == Facts(images=1258, classes=10, side=8, is_symbols=True, validation=180, imbalance=digits.imbalance)


def test_grades_are_no_digits_and_are_not_adjusted_for(tmp_path: Path):
    for name, count in {"0": 40, "1": 2}.items():
        write_images(tmp_path / name, count, (40, 30))
    classes, grades = (measure_facts(DataConfig(path=str(tmp_path), task=task)) for task in ("multiclass", "ordinal"))
    assert (classes.is_symbols, classes.imbalance) == (True, 20.0)
    assert (grades.is_symbols, grades.imbalance) == (False, 1.0)


def test_a_folder_without_a_readable_image_is_refused(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the images that were tried can be read"):
        measure_facts(DataConfig(path=str(tmp_path)))
