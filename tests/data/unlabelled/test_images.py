"""Reading of data.unlabelled: every kind of source, without copies of held-out images."""

import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, DataError
from tests.conftest import draw_photos


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "labelled", {"cat": 20, "dog": 20})


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "others", {"deep/a": 6, "b": 4}, seed=7)


def load(path: Path, unlabelled: Path | str, **changes):
    settings = {"data.path": str(path), "data.unlabelled": str(unlabelled), "data.cache": None, **changes}
    return data.load(Experiment().override_all(settings).data)


def test_a_folder_at_any_depth(labelled, others):
    dataset = load(labelled, others)
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == 10
    assert dataset.unlabelled.images_NCHW.shape[1:] == dataset.train.images_NCHW.shape[1:]
    assert set(dataset.unlabelled.labels_N.tolist()) == {-1}
    assert any("10 unlabelled images of others" in finding for finding in dataset.findings)
    without = data.load(Experiment().override_all({"data.path": str(labelled), "data.cache": None}).data)
    assert (without.fingerprint, without.unlabelled) == (dataset.fingerprint, None)


def test_archives_and_lists(labelled, others, tmp_path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for file in sorted(others.rglob("*.*g")):
            archive.write(file, file.name if file.parent.name == "b" else f"x/{file.name}")
    manifest = others / "list.csv"
    files = sorted(path.relative_to(others).as_posix() for path in others.rglob("*") if path.suffix in (".png", ".jpg"))
    manifest.write_text("path,label\n" + "".join(f"{name},\n" for name in files))
    for given in (tmp_path / "some.zip", manifest):
        found = load(labelled, given).unlabelled
        assert found is not None
        assert len(found) == 10


def test_copies_of_held_out_images_are_left_out(labelled, others):
    held_out = [load(labelled, others).test.ids[0], load(labelled, others).validation.ids[0]]
    shutil.copy(labelled / held_out[0], others / "copy.png")
    with Image.open(labelled / held_out[1]) as image:
        image.save(others / "again.bmp")  # the same pixels in another file
    dataset = load(labelled, others)
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == 10
    assert not {"copy.png", "again.bmp"} & set(dataset.unlabelled.ids)
    assert any("2 of the unlabelled images are validation or test images" in one for one in dataset.findings)


def test_the_data_set_itself_leaves_its_training_images(labelled):
    dataset = load(labelled, labelled)
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == len(dataset.train)


def test_what_has_no_images_is_refused(labelled, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data.unlabelled: .*empty contains no images.*: give another folder"):
        load(labelled, tmp_path / "empty")
    with pytest.raises(DataError, match=r"data.unlabelled: .*missing does not exist"):
        load(labelled, tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"data.unlabelled cannot be used with data.stream"):
        load(labelled, tmp_path, **{"data.stream": True})
