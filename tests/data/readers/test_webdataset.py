"""Tar shards of samples, as WebDataset writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.readers import detect, webdataset
from classifier.data.split_names import TEST, TRAIN, VALIDATION
from classifier.errors import DataError
from tests.data.readers.test_archive import pack_tar


@pytest.fixture
def pictures(paint, tmp_path: Path) -> list[bytes]:
    return [paint(tmp_path / "paint" / f"{n}.png").read_bytes() for n in range(24)]


def shard(path: Path, pictures: list[bytes], first: int = 0, label: Callable[[int], str] = str) -> Path:
    files = {}
    for n, content in enumerate(pictures, first):
        files[f"{n:06d}.png"] = content
        files[f"{n:06d}.cls"] = label(n % 2).encode()
        files[f"{n:06d}.txt"] = b"a caption"
    path.parent.mkdir(parents=True, exist_ok=True)
    return pack_tar(path, files)


def labels(source) -> dict[str, str]:
    return {id_: source.class_names[k] for id_, k in zip(source.ids, source.labels_N.tolist(), strict=True)}


def test_a_folder_of_shards(pictures, tmp_path: Path) -> None:
    home = tmp_path / "set"
    for n in range(3):
        shard(home / f"train-{n:04d}.tar", pictures[6 * n : 6 * n + 6], 6 * n)
    shard(home / "val-0000.tar", pictures[18:20], 18)
    shard(home / "test-0000.tar", pictures[20:], 20)
    source = data.open_source(DataConfig(path=str(home)))
    assert source.name == "set"
    assert labels(source)["train-0001.tar/000007.png"] == "1"
    assert source.class_names == ("0", "1")
    split = dict(zip(source.ids, source.splits_N.tolist(), strict=True))
    assert split["train-0002.tar/000012.png"] == TRAIN
    assert split["val-0000.tar/000018.png"] == VALIDATION
    assert split["test-0000.tar/000023.png"] == TEST
    index = list(source.ids).index("test-0000.tar/000021.png")
    assert list(source.images)[index].read_bytes() == pictures[21]
    loaded = data.load(DataConfig(path=str(home / "train-{0000..0002}.tar"), validation=0.2))
    assert sum(loaded.counts.values()) == 18
    (home / "classes.txt").write_text("cat\ndog\n")
    assert data.open_source(DataConfig(path=str(home))).class_names == ("cat", "dog")
    (home / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match=r"names 1 classes, the shards have a class 1"):
        data.open_source(DataConfig(path=str(home)))


def test_patterns(pictures, tmp_path: Path) -> None:
    for n in (8, 9, 10):
        shard(tmp_path / "set" / f"a-{n:02d}.tar", pictures[:4])
    names = [path.name for path in detect.expand_pattern(f"{tmp_path}/set/a-{{08..10}}.tar")]
    assert names == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert detect.expand_pattern(f"{tmp_path}/set/*.tar") == detect.expand_pattern(f"{tmp_path}/set/a-{{08..10}}.tar")
    assert detect.expand_pattern(f"{tmp_path}/nothing/*.tar") == []
    with pytest.raises(DataError, match="2 of its 5 files are missing, the first 06"):
        detect.expand_pattern(f"{tmp_path}/set/a-{{06..10}}.tar")


def test_labels_in_json(pictures, tmp_path: Path) -> None:
    files = {}
    for n, document in enumerate(({"label": "cat"}, {"cls": 3}, {"class": "dog"}, "owl")):
        files |= {f"{n}.png": pictures[n], f"{n}.json": json.dumps(document).encode()}
    source = webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])
    assert list(labels(source).values()) == ["cat", "3", "dog", "owl"]


def test_faults_of_samples_are_told_and_survived(pictures, tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", pictures[:10])
    import io
    import tarfile

    faults = {
        "alone.png": pictures[11],
        "lonely.cls": b"1",
        "blank.png": pictures[12],
        "blank.cls": b" ",
        "bad.png": pictures[13],
        "bad.json": b"{",
        "deep.png": pictures[14],
        "deep.json": b"[" * 100_000,
        "binary.png": pictures[15],
        "binary.cls": b"\xff\xfe",
        "two.png": pictures[16],
        "two.jpg": pictures[17],
        "two.cls": b"1",
    }
    with tarfile.open(path, "a") as made:
        for name, content in faults.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    source = webdataset.read_webdataset([path])
    assert len(source.ids) == 11
    assert source.ids[-1] == "set.tar/two.png"
    said = " ".join(source.findings)
    assert "2 samples lack a picture or a label and were left out: set.tar/alone, set.tar/lonely." in said
    assert "4 samples have a label that cannot be read and were left out" in said
    assert "1 samples have several pictures, of which the first is taken: set.tar/two." in said


def test_no_labels_at_all(pictures, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture with a label"):
        webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", {"a.png": pictures[0]})])
