"""What data.path may be."""

import importlib
import os
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
    source = open_source(DataConfig())
    assert source.class_names == ("cat", "dog")
    assert source.findings == (
        f"digits was read from {photos.parent / 'digits'}, which comes before the known data set of that name.",
    )
    assert open_source(DataConfig(path="./digits")).findings == ()


@pytest.mark.parametrize("path", ["./digits", "digits/", "data/digits", "/digits", "~/digits", "digits.zip", "digits "])
def test_a_missing_path_is_no_known_data_set(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"digits.* does not exist"):
        open_source(DataConfig(path=path))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.csv", "pipe.tar", "pipe.parquet", "pipe.txt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} is a pipe or device, not a file"):
            open_source(DataConfig(path=str(tmp_path / name)))
    with pytest.raises(DataError, match="/dev/zero is a pipe or device"):
        open_source(DataConfig(path="/dev/zero"))
    with pytest.raises(DataError, match=r"data\.path is empty"):
        open_source(DataConfig(path=""))
    for name, leads_to in (("gone", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(tmp_path / leads_to)
        with pytest.raises(DataError, match=f"{name} is a link to {tmp_path}/{leads_to}, which cannot be read"):
            open_source(DataConfig(path=str(tmp_path / name)))


def test_pipes_and_litter_are_no_shards_of_a_folder(photos: Path, paint) -> None:
    os.mkfifo(photos / "x.tar")
    for name in ("._set.tar", "cat/._set.parquet", ".ipynb_checkpoints/set-checkpoint.tar", "@eaDir/set.parquet"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"no shard")
    source = open_source(DataConfig(path=str(photos)))
    assert source.class_names == ("cat", "dog")
    assert source.findings == ("pipes and devices were left out, 1 in all.",)


def test_a_pattern_of_other_files_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match=r"matches 20 files, which are no tar shards or tables of images \(00\.png, 01"):
        open_source(DataConfig(path=f"{photos}/cat/*"))


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
        ("photoz", r"photoz does not exist in /.*, and no known data set has that name; did you mean photos\?"),
        ("ciphar10", r"; did you mean cifar10\?"),
        (
            "no/such/thing",
            r"no/such/thing does not exist in /.*: give a folder, a manifest or digits, mnist, fashion_mnist",
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
