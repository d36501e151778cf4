"""Data in remote storage, given by a URI, equals data on a disk."""

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
    remote, local = (data.load(DataConfig(path=p, size=8, cache=None, **settings)) for p in (uri, str(path)))
    assert remote.class_names == local.class_names
    assert remote.counts == local.counts
    assert remote.train.ids == local.train.ids
    assert remote.train.images_NCHW[:].equal(local.train.images_NCHW[:])
    assert remote.fingerprint == local.fingerprint


def test_a_folder(photos: Path) -> None:
    same(photos.as_uri(), photos)


@pytest.mark.parametrize("kind", PACK)
def test_archives(kind: str, photos: Path, tmp_path: Path) -> None:
    path = PACK[kind](tmp_path / f"set.{kind}", contents(photos, "photos/"))
    same(path.as_uri(), path)


def test_shards_and_tables(photos: Path, tmp_path: Path) -> None:
    image_bytes = list(contents(photos).values())
    for n in range(2):
        shard(tmp_path / "shards" / f"train-{n}.tar", image_bytes[20 * n : 20 * n + 20], 20 * n)
    same((tmp_path / "shards").as_uri(), tmp_path / "shards")
    rows = [{"bytes": content, "path": "x"} for content in image_bytes]
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


def test_cache_follows_changes(photos: Path, tmp_path: Path) -> None:
    config = DataConfig(path=photos.as_uri(), size=8, channels=3, cache=str(tmp_path / "cache"))
    first = data.load(config)
    images_NCHW = first.train.images_NCHW[:]
    again = data.load(config)
    assert again.train.images_NCHW[:].equal(images_NCHW)
    shutil.rmtree(photos / "cat")
    shutil.copytree(photos / "dog", photos / "cow")
    assert data.load(config).class_names == ("cow", "dog")


def test_as_a_stream(photos: Path, tmp_path: Path) -> None:
    for n in range(2):
        shard(tmp_path / "shards" / f"train-{n}.tar", list(contents(photos).values())[20 * n : 20 * n + 20], 20 * n)
    same((tmp_path / "shards").as_uri(), tmp_path / "shards", stream=True)


def test_missing_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        data.open_source(DataConfig(path=(tmp_path / "empty").as_uri()))
    with pytest.raises(DataError, match="cannot be read"):
        data.open_source(DataConfig(path=(tmp_path / "nowhere").as_uri()))
    with pytest.raises(ConfigError, match=r"data\.path foo://a/b cannot be opened"):
        data.open_source(DataConfig(path="foo://a/b"))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID") as caught:
        data.open_source(DataConfig(path="s3://key:secret@bucket/x"))
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_all_formats_in_s3(bucket, photos: Path, tmp_path: Path) -> None:
    """A folder, archives, shards, a table and a manifest, in memory and streamed, from an object store."""
    before, after = bucket
    image_bytes = list(contents(photos).values())
    folder = tmp_path / "folder"
    shutil.copytree(photos, folder / "photos")
    for kind, pack in PACK.items():
        pack(folder / f"set.{kind}", contents(photos, "photos/"))
    for n in range(2):
        shard(folder / "shards" / f"train-{n}.tar", image_bytes[20 * n : 20 * n + 20], 20 * n)
    rows = [{"bytes": content, "path": "x"} for content in image_bytes]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [n % 2 for n in range(40)]}), folder / "set.parquet")
    lines = [f"photos/{name},{name[:3]}" for name in sorted(contents(photos))]
    (folder / "set.csv").write_text("\n".join(["path,label", *lines]))
    system, path = fs.FileSystem.from_uri(f"{before}/data{after}")
    fs.copy_files(str(folder), path, destination_filesystem=system)
    for name in ["photos", *(f"set.{kind}" for kind in PACK), "shards", "set.parquet", "set.csv"]:
        same(f"{before}/data/{name}{after}", folder / name)
    for name in ("photos", "shards", "set.parquet"):
        same(f"{before}/data/{name}{after}", folder / name, stream=True)


def test_unreachable_storage_is_an_error(bucket, photos: Path) -> None:
    before, after = bucket
    system, path = fs.FileSystem.from_uri(f"{before}/photos{after}")
    fs.copy_files(str(photos), path, destination_filesystem=system)
    with pytest.raises(DataError, match="photos"):
        data.open_source(DataConfig(path=f"{before}/absent/photos{after}"))
    port = int(after.partition("127.0.0.1:")[2].partition("&")[0])
    nobody = after.replace(str(port), "1")
    with pytest.raises(DataError, match="cannot be read"):
        data.open_source(DataConfig(path=f"{before}/photos{nobody}"))
