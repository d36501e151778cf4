"""Oxford-IIIT Pet as its authors ship it."""

from pathlib import Path

import pytest

from classifier.config.sections import DataConfig
from classifier.data import load, open_source
from classifier.errors import DataError

BREEDS = ("Abyssinian", "great_pyrenees", "japanese_chin")


@pytest.fixture
def root(tmp_path: Path, paint) -> Path:
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for word, numbers in (("trainval", range(20)), ("test", range(100, 106))):
        lines = []
        for k, breed in enumerate(BREEDS, 1):
            for number in numbers:
                paint(folder / "images" / f"{breed}_{number}.jpg")
                lines.append(f"{breed}_{number} {k} 1 1\n")
        (folder / "annotations" / f"{word}.txt").write_text("".join(lines))
    return tmp_path


def test_oxford_pets(root: Path) -> None:
    dataset = load(DataConfig(path="oxford_iiit_pet", root=str(root)))
    assert (dataset.name, dataset.kind) == ("oxford_iiit_pet", "photos")
    assert dataset.class_names == ("Abyssinian", "Great Pyrenees", "Japanese Chin")
    assert len(dataset.test) == 18
    assert len(dataset.train) + len(dataset.validation) == 60
    assert len(dataset.validation) >= 3
    assert "images/great_pyrenees_100.jpg" in dataset.test.ids


def test_missing_list_is_named(root: Path) -> None:
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt is missing or corrupted"):
        open_source(DataConfig(path="OxfordIIITPet", root=str(root)))
