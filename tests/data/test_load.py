"""What data.path may be."""

import importlib
from pathlib import Path

import pytest

from classifier.config.sections import DataConfig
from classifier.data import load, open_source
from classifier.data.readers.detect import DATASETS
from classifier.errors import DataError


def test_every_known_data_set_has_a_reader() -> None:
    for name, location in DATASETS.items():
        module, _, attribute = location.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute)), name


def test_path_takes_precedence_over_a_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.rename(photos.with_name("digits"))
    assert open_source(DataConfig()).class_names == tuple("0123456789")
    monkeypatch.chdir(photos.parent)
    assert open_source(DataConfig()).class_names == ("cat", "dog")


def test_manifest_reads_like_the_folder_it_lists(photos: Path) -> None:
    rows = [f"{path.relative_to(photos.parent).as_posix()},{path.parent.name}" for path in photos.rglob("*.png")]
    manifest = photos.parent / "photos.csv"
    manifest.write_text("\n".join(["path,label", *sorted(rows)]))
    one, other = load(DataConfig(path=str(photos))), load(DataConfig(path=str(manifest)))
    assert one.fingerprint == other.fingerprint
    assert other.train.ids == tuple(f"photos/{id_}" for id_ in one.train.ids)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("photoz", r"photoz does not exist, and no known data set has that name; did you mean photos\?"),
        ("ciphar10", r"; did you mean cifar10\?"),
        (
            "no/such/thing",
            r"no/such/thing does not exist, .*: give a folder, a manifest or digits, mnist, fashion_mnist",
        ),
        ("nul\0byte", r"does not exist"),
        ("x" * 5000, r"does not exist"),
        ("~nobody-has-this-name/x", r"does not exist"),
    ],
)
def test_missing_path(path: str, reason: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    with pytest.raises(DataError, match=reason) as caught:
        load(DataConfig(path=path))
    assert "\n" not in str(caught.value)


def test_home_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos.parent))
    assert open_source(DataConfig(path="~/photos")).name == "photos"
