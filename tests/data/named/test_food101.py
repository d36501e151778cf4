"""Food-101 as its authors ship it."""

import json
from pathlib import Path

import pytest

from classifier.config.sections import DataConfig
from classifier.data import load, open_source
from classifier.errors import DataError


@pytest.fixture
def root(tmp_path: Path, paint) -> Path:
    folder = tmp_path / "food-101"
    (folder / "meta").mkdir(parents=True)
    for word, numbers in (("train", range(20)), ("test", range(100, 106))):
        listed = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("apple_pie", "sushi")}
        (folder / "meta" / f"{word}.json").write_text(json.dumps(listed))
        for image in [image for images in listed.values() for image in images]:
            paint(folder / "images" / f"{image}.jpg")
    return tmp_path


def test_food101(root: Path) -> None:
    dataset = load(DataConfig(path="Food101", root=str(root)))
    assert (dataset.name, dataset.kind, dataset.class_names) == ("food101", "photos", ("apple pie", "sushi"))
    assert sorted(dataset.test.ids) == sorted(
        f"images/{d}/{n}.jpg" for d in ("apple_pie", "sushi") for n in range(100, 106)
    )
    assert len(dataset.train) + len(dataset.validation) == 40


@pytest.mark.parametrize("text", ["{", "[1]", '{"sushi": 3}'])
def test_corrupted_file_is_named(text: str, root: Path) -> None:
    (root / "food-101" / "meta" / "test.json").write_text(text)
    with pytest.raises(DataError, match=r"test\.json is missing or corrupted"):
        open_source(DataConfig(path="food101", root=str(root)))
