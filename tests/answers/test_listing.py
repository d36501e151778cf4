"""Images without labels, listed from every kind of place, by names that their answers keep."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from classifier.answers.listing import ImageListing, ListedImage, cut_into_parts
from classifier.answers.path_stream import read_paths
from classifier.errors import DataError
from tests.data.decoding.test_decode import encoded

NAMES = ("a/1.png", "a/2.jpg", "b/c/3.png", "b.png")
CONTENTS = {name: encoded(Image.new("RGB", (9, 8), (n, 0, 0)), "PNG") for n, name in enumerate(NAMES)}


@pytest.fixture
def everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same four images in every kind of place, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    for name, content in CONTENTS.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "folder" / "notes.txt").write_text("not an image")
    os.makedirs("shards/deep")
    with zipfile.ZipFile("all.zip", "w") as archive, tarfile.open("shards/deep/0.tar", "w") as shard:
        for name, content in {**CONTENTS, ".hidden/4.png": b"", "a/readme.md": b"", "a/1.cls": b"7"}.items():
            archive.writestr(name, content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    contents = [*CONTENTS.values()]
    pq.write_table(
        pa.table({"image": [{"bytes": c, "path": "x"} for c in contents]}), "images.parquet", row_group_size=3
    )
    files = [f"folder/{name}" for name in NAMES]
    pq.write_table(pa.table({"path": files}), "paths.parquet")
    Path("named.csv").write_text("id,path\n" + "".join(f"{n},{file}\n" for n, file in enumerate(files)))
    Path("bare.csv").write_text("".join(f"{file},7\n" for file in files))
    Path("labelled.txt").write_text("".join(f"{file} 7\n" for file in files))
    Path("paths.txt").write_text("\n".join(files) + "\n\n")
    Path("index.lst").write_text("".join(f"{n}\t7\t{file}\n" for n, file in enumerate(files)))
    Path("rows.jsonl").write_text("".join(json.dumps({"path": file, "text": "x"}) + "\n" for file in files))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "prefix"),
    [
        (["folder"], "folder/"),
        (["folder/a/1.png", "folder/a/2.jpg", "folder/b*"], "folder/"),
        (["all.zip"], "all.zip/"),
        (["shards"], "shards/deep/0.tar/"),
        (["shards/*/{0..0}.tar"], "shards/deep/0.tar/"),
        (["images.parquet"], None),
        *(([name], "folder/") for name in ("named.csv", "bare.csv", "labelled.txt", "paths.txt", "index.lst")),
        *(([name], "folder/") for name in ("rows.jsonl", "paths.parquet", "-")),
    ],
)
def test_the_same_images_are_listed_from_every_place(everywhere: Path, words: list[str], prefix: str | None) -> None:
    stdin = io.BytesIO(Path("paths.txt").read_bytes())
    listing = ImageListing(words, lambda: read_paths(stdin))
    listed = [*listing]
    ids = [f"{prefix}{name}" for name in NAMES] if prefix else [f"images.parquet/{row}" for row in range(4)]
    assert [image.id for image in listed] == ids
    assert [image.file.read_bytes() for image in listed if image.file] == [*CONTENTS.values()]
    assert listing.estimate_total() == 4
    there = pickle.loads(pickle.dumps(listed))  # noqa: S301 - as Ray sends them to another machine
    assert [image.file.read_bytes() for image in there] == [*CONTENTS.values()]


def test_storage_is_listed_like_a_folder(everywhere: Path) -> None:
    uri = f"file://{everywhere}"
    assert [image.id for image in ImageListing([f"{uri}/folder"])] == [f"{uri}/folder/{name}" for name in NAMES]
    for word in (f"{uri}/shards", f"{uri}/images.parquet", f"{uri}/folder/b.png"):
        listed = [*ImageListing([word])]
        contents = [image.file.read_bytes() for image in listed if image.file]
        assert contents == [*CONTENTS.values()][-len(listed) :]
        assert all(image.id.startswith(word) for image in listed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png"], "absent.png does not exist in "),
        (["folder/*.gif"], "does not exist"),
        (["-", "-"], "give - once"),
        (["packed.tar.gz"], "is compressed as a whole"),
        (["empty"], "empty contains no images"),
        (["wrong.jsonl"], "wrong.jsonl line 2 has no path"),
        (["outside.csv"], "leads out of"),
    ],
)
def test_what_cannot_be_listed_is_named(everywhere: Path, words: list[str], message: str) -> None:
    os.makedirs("empty")
    Path("packed.tar.gz").write_bytes(b"")
    Path("wrong.jsonl").write_text('{"path": "folder/b.png"}\n{"label": 7}\n')
    Path("outside.csv").write_text("path\n../elsewhere.png\n")
    with pytest.raises(DataError, match=message):
        list(ImageListing(words))


def test_a_missing_file_of_a_list_is_listed(everywhere: Path) -> None:
    Path("paths.txt").write_text("folder/absent.png\nfolder/b.png\n")
    absent, _ = ImageListing(["paths.txt"])
    assert absent.id == "folder/absent.png"
    assert not Path(str(absent.file)).exists()


def test_parts_are_known_by_their_images_and_the_state_of_their_files(everywhere: Path) -> None:
    def cut(*words: str) -> list[str]:
        parts = [*cut_into_parts(ImageListing(words), 3)]
        assert [len(part.images) for part in parts] == [3, 1]
        assert [part.number for part in parts] == [0, 1]
        return [part.fingerprint for part in parts]

    for word, file in (("folder", "folder/b.png"), ("all.zip", "all.zip"), ("images.parquet", "images.parquet")):
        before = cut(word)
        assert cut(word) == before
        os.utime(file, (1, 1))
        assert [one == other for one, other in zip(cut(word), before, strict=True)] == [word == "folder", False]


def test_the_total_of_archives_is_estimated_from_those_that_were_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(1 << 18)
    for number in range(4):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as shard:
            for n in range(10):
                member = tarfile.TarInfo(f"{n}.jpg")
                member.size = len(noise)
                shard.addfile(member, io.BytesIO(noise))
    listing = ImageListing([str(tmp_path)])
    images = iter(listing)
    assert listing.estimate_total() is None
    assert isinstance([next(images) for _ in range(8)][-1], ListedImage)
    assert abs((listing.estimate_total() or 0) - 40) <= 8
    assert len([*images]) + 8 == listing.estimate_total() == 40
