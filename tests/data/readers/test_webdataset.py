"""WebDataset tar shards."""

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
def image_bytes(paint, tmp_path: Path) -> list[bytes]:
    return [paint(tmp_path / "paint" / f"{n}.png").read_bytes() for n in range(24)]


def shard(path: Path, image_bytes: list[bytes], first: int = 0, label: Callable[[int], str] = str) -> Path:
    files = {}
    for n, content in enumerate(image_bytes, first):
        files[f"{n:06d}.png"] = content
        files[f"{n:06d}.cls"] = label(n % 2).encode()
        files[f"{n:06d}.txt"] = b"a caption"
    path.parent.mkdir(parents=True, exist_ok=True)
    return pack_tar(path, files)


def labels(source) -> dict[str, str]:
    return {id_: source.class_names[k] for id_, k in zip(source.ids, source.labels_N.tolist(), strict=True)}


def test_a_folder_of_shards(image_bytes, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for n in range(3):
        shard(folder / f"train-{n:04d}.tar", image_bytes[6 * n : 6 * n + 6], 6 * n)
    shard(folder / "val-0000.tar", image_bytes[18:20], 18)
    shard(folder / "test-0000.tar", image_bytes[20:], 20)
    source = data.open_source(DataConfig(path=str(folder)))
    assert source.name == "set"
    assert labels(source)["train-0001.tar/000007.png"] == "1"
    assert source.class_names == ("0", "1")
    split = dict(zip(source.ids, source.splits_N.tolist(), strict=True))
    assert split["train-0002.tar/000012.png"] == TRAIN
    assert split["val-0000.tar/000018.png"] == VALIDATION
    assert split["test-0000.tar/000023.png"] == TEST
    index = list(source.ids).index("test-0000.tar/000021.png")
    assert list(source.images)[index].read_bytes() == image_bytes[21]
    loaded = data.load(DataConfig(path=str(folder / "train-{0000..0002}.tar"), validation=0.2))
    assert sum(loaded.counts.values()) == 18


def test_class_names_beside_the_shards(image_bytes, tmp_path: Path) -> None:
    path = shard(tmp_path / "set" / "train-0000.tar", image_bytes[:6])
    names = path.parent / "classes.txt"
    for content in (b"cat\ndog\n", b"\xef\xbb\xbfcat \r\ndog\r\n\r\n", "cat\ndog".encode("utf-16")):
        names.write_bytes(content)
        assert webdataset.read_webdataset([path]).class_names == ("cat", "dog")
    names.write_text("cat\ncat\n")
    source = webdataset.read_webdataset([path])
    assert source.class_names == ("cat",)
    assert source.findings == (f"{names} has 'cat' more than once: each name is one class.",)
    for content, reason in (
        (b"cat\n", r"000001, named by .*classes\.txt: the label 1 is none of the 1 classes"),
        (b"caf\xe9\ndog\n", r"classes\.txt is not UTF-8 text"),
    ):
        names.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            webdataset.read_webdataset([path])
    names.rename(tmp_path / "secret.txt")
    names.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match=r"classes\.txt is a link that leads out of"):
        webdataset.read_webdataset([path])


def test_patterns(image_bytes, tmp_path: Path) -> None:
    for n in (8, 9, 10):
        shard(tmp_path / "set" / f"a-{n:02d}.tar", image_bytes[:4])
    names = [path.name for path in detect.expand_pattern(f"{tmp_path}/set/a-{{08..10}}.tar")]
    assert names == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert detect.expand_pattern(f"{tmp_path}/set/*.tar") == detect.expand_pattern(f"{tmp_path}/set/a-{{08..10}}.tar")
    assert detect.expand_pattern(f"{tmp_path}/nothing/*.tar") == []
    with pytest.raises(DataError, match="2 of its 5 files are missing, the first 06"):
        detect.expand_pattern(f"{tmp_path}/set/a-{{06..10}}.tar")


def test_labels_in_json(image_bytes, tmp_path: Path) -> None:
    files = {}
    for n, document in enumerate(({"label": "cat"}, {"cls": 3}, {"class": "dog"}, "owl")):
        files |= {f"{n}.png": image_bytes[n], f"{n}.json": json.dumps(document).encode()}
    source = webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])
    assert list(labels(source).values()) == ["cat", "3", "dog", "owl"]


def test_several_labels(image_bytes, tmp_path: Path) -> None:
    files = {}
    for n, document in enumerate(({"labels": ["cat", "dog"]}, {"label": []}, ["dog"], {"label": None})):
        files |= {f"{n}.png": image_bytes[n], f"{n}.json": json.dumps(document).encode()}
    source = webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])
    assert source.label_sets is not None
    assert [source.label_sets[m] for m in source.labels_N] == [(0, 1), (), (1,)]
    assert source.findings[-1].startswith("its images have 0 to 2 of 2 labels, 1.0 on average, in lists: multilabel")
    files["4.png"], files["4.json"] = image_bytes[4], b'"cat"'
    with pytest.raises(DataError, match=r"set\.tar/4\.png has the label 'cat', which is no list"):
        webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])


@pytest.mark.parametrize(
    ("first", "second", "labels_of"),
    [
        (b"cat", b"dog", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\n", "dog\n".encode("utf-16"), ("cat", "dog")),
        (b"10", b"9.0\n", ("9.0", "10")),
        (b"1", b"01", ("1",)),
    ],
)
def test_texts_of_labels(first: bytes, second: bytes, labels_of: tuple[str, ...], image_bytes, tmp_path: Path) -> None:
    files = {"a.png": image_bytes[0], "a.cls": first, "b.png": image_bytes[1], "b.cls": second}
    assert webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)]).class_names == labels_of


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cls", b"caf\xe9", r"set\.tar: a\.cls is not UTF-8 text"),
        ("cls", b"0 1 0", r"names a label twice: list the labels"),
        ("json", b'{"label": [0, null]}', r"set\.tar: a has a list with a missing label"),
        ("json", b'{"label": {"id": 3}}', "a label of type dict"),
        ("json", b'{"label": 1e999}', "which is no class"),
    ],
)
def test_labels_that_are_refused(name: str, content: bytes, reason: str, image_bytes, tmp_path: Path) -> None:
    files = {"a.png": image_bytes[0], f"a.{name}": content}
    with pytest.raises(DataError, match=reason):
        webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (("a.png", "a.cls", "b.JPG", "b.CLS"), ["a.png", "b.JPG"]),
        (("img.001.png", "img.001.cls", "img.002.png", "img.002.cls"), ["img.001.png", "img.002.png"]),
        (("22.05.png", "22.05.json", "7.png", "7.cls"), ["22.05.png", "7.png"]),
        (("v1.0/7.seg.png", "v1.0/7.jpg", "v1.0/7.cls"), ["v1.0/7.jpg"]),
        (("7.seg.png", "7.jpg", "7.meta.json", "7.cls"), ["7.jpg"]),
        (("7.left.png", "7.cls"), ["7.left.png"]),
        (("22.05.png", "22.05.cls", "22.06.png", "22.07.png"), ["22.05.png"]),
    ],
)
def test_keys_may_have_dots(names: tuple[str, ...], images: list[str], image_bytes, tmp_path: Path) -> None:
    files = {name: image_bytes[n] if name[-3:].lower() in ("png", "jpg") else b"1" for n, name in enumerate(names)}
    source = webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", files)])
    assert list(source.ids) == [f"set.tar/{name}" for name in images]
    if "22.07.png" in names:
        assert source.findings == (
            "2 samples lack an image or a label and were left out: set.tar/22.06, set.tar/22.07.",
        )


def test_faulty_samples_are_reported_and_skipped(image_bytes, tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", image_bytes[:10])
    import io
    import tarfile

    faults = {
        "alone.png": image_bytes[11],
        "lonely.cls": b"1",
        "blank.png": image_bytes[12],
        "blank.cls": b" ",
        "bad.png": image_bytes[13],
        "bad.json": b"{",
        "deep.png": image_bytes[14],
        "deep.json": b"[" * 100_000,
        "binary.png": image_bytes[15],
        "binary.cls": b"\xff\xfe",
        "two.png": image_bytes[16],
        "two.jpg": image_bytes[17],
        "two.cls": b"1",
    }
    with tarfile.open(path, "a") as archive:
        for name, content in faults.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    source = webdataset.read_webdataset([path])
    assert len(source.ids) == 11
    assert source.ids[-1] == "set.tar/two.png"
    text = " ".join(source.findings)
    assert "2 samples lack an image or a label and were left out: set.tar/alone, set.tar/lonely." in text
    assert "2 samples have an unreadable label and were left out: set.tar/bad, set.tar/deep." in text
    assert "2 images have no label and were left out: set.tar/blank.png, set.tar/binary.png." in text
    assert "1 samples have several images, of which the first is used: set.tar/two." in text


def test_no_labels_at_all(image_bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image with a label"):
        webdataset.read_webdataset([pack_tar(tmp_path / "set.tar", {"a.png": image_bytes[0]})])
