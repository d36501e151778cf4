"""Data in storage: the same as on a disk, by a URI."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from classifier import data
from classifier.config.sections import DataConfig
from classifier.errors import ConfigError, DataError
from tests.data.readers.test_archive import PACK, contents
from tests.data.readers.test_webdataset import shard


def same(uri: str, path: Path, **settings) -> None:
    far, near = (data.load(DataConfig(path=p, size=8, cache=None, **settings)) for p in (uri, str(path)))
    assert far.class_names == near.class_names
    assert far.counts == near.counts
    assert far.train.ids == near.train.ids
    assert far.train.images_NCHW[:].equal(near.train.images_NCHW[:])
    assert far.fingerprint == near.fingerprint


def test_a_folder(photos: Path) -> None:
    same(photos.as_uri(), photos)


@pytest.mark.parametrize("kind", PACK)
def test_archives(kind: str, photos: Path, tmp_path: Path) -> None:
    path = PACK[kind](tmp_path / f"set.{kind}", contents(photos, "photos/"))
    same(path.as_uri(), path)


def test_shards_and_tables(photos: Path, tmp_path: Path) -> None:
    pictures = list(contents(photos).values())
    for n in range(2):
        shard(tmp_path / "shards" / f"train-{n}.tar", pictures[20 * n : 20 * n + 20], 20 * n)
    same((tmp_path / "shards").as_uri(), tmp_path / "shards")
    rows = [{"bytes": content, "path": "x"} for content in pictures]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [n % 2 for n in range(40)]}), tmp_path / "set.parquet")
    same((tmp_path / "set.parquet").as_uri(), tmp_path / "set.parquet")


def test_manifests(photos: Path) -> None:
    names = sorted(contents(photos))
    (photos / "set.csv").write_text("path,label\n" + "\n".join(f"{name},{name[:3]}" for name in names))
    same((photos / "set.csv").as_uri(), photos / "set.csv")
    (photos / "bad.csv").write_text("path,label\n../../secret.png,cat\n")
    with pytest.raises(DataError, match="leads out of"):
        data.open_source(DataConfig(path=(photos / "bad.csv").as_uri()))


def test_it_is_cached_by_its_state(photos: Path, tmp_path: Path) -> None:
    config = DataConfig(path=photos.as_uri(), size=8, channels=3, cache=str(tmp_path / "cache"))
    first = data.load(config)
    kept = first.train.images_NCHW[:]
    again = data.load(config)
    assert again.train.images_NCHW[:].equal(kept)
    shutil.rmtree(photos / "cat")
    shutil.copytree(photos / "dog", photos / "cow")
    assert data.load(config).class_names == ("cow", "dog")


def test_as_a_stream(photos: Path, tmp_path: Path) -> None:
    for n in range(2):
        shard(tmp_path / "shards" / f"train-{n}.tar", list(contents(photos).values())[20 * n : 20 * n + 20], 20 * n)
    same((tmp_path / "shards").as_uri(), tmp_path / "shards", stream=True)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing"):
        data.open_source(DataConfig(path=(tmp_path / "empty").as_uri()))
    with pytest.raises(DataError, match="cannot be read"):
        data.open_source(DataConfig(path=(tmp_path / "nowhere").as_uri()))
    with pytest.raises(ConfigError, match=r"data\.path foo://a/b cannot be opened"):
        data.open_source(DataConfig(path="foo://a/b"))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID") as caught:
        data.open_source(DataConfig(path="s3://key:secret@bucket/x"))
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_all_of_it_in_s3(bucket, photos: Path, tmp_path: Path) -> None:
    """A folder, archives, shards, a table and a manifest, whole and as a stream, from a server of objects."""
    before, after = bucket
    pictures = list(contents(photos).values())
    made = tmp_path / "made"
    shutil.copytree(photos, made / "photos")
    for kind, pack in PACK.items():
        pack(made / f"set.{kind}", contents(photos, "photos/"))
    for n in range(2):
        shard(made / "shards" / f"train-{n}.tar", pictures[20 * n : 20 * n + 20], 20 * n)
    rows = [{"bytes": content, "path": "x"} for content in pictures]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [n % 2 for n in range(40)]}), made / "set.parquet")
    lines = [f"photos/{name},{name[:3]}" for name in sorted(contents(photos))]
    (made / "set.csv").write_text("\n".join(["path,label", *lines]))
    system, place = fs.FileSystem.from_uri(f"{before}/data{after}")
    fs.copy_files(str(made), place, destination_filesystem=system)
    for name in ["photos", *(f"set.{kind}" for kind in PACK), "shards", "set.parquet", "set.csv"]:
        same(f"{before}/data/{name}{after}", made / name)
    for name in ("photos", "shards", "set.parquet"):
        same(f"{before}/data/{name}{after}", made / name, stream=True)


def test_a_storage_that_goes_away_is_told(bucket, photos: Path) -> None:
    before, after = bucket
    system, place = fs.FileSystem.from_uri(f"{before}/photos{after}")
    fs.copy_files(str(photos), place, destination_filesystem=system)
    with pytest.raises(DataError, match="photos"):
        data.open_source(DataConfig(path=f"{before}/absent/photos{after}"))
    port = int(after.partition("127.0.0.1:")[2].partition("&")[0])
    nobody = after.replace(str(port), "1")
    with pytest.raises(DataError, match="cannot be read"):
        data.open_source(DataConfig(path=f"{before}/photos{nobody}"))
