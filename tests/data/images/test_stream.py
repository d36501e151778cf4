"""A stream: few chunks in memory, each image once per epoch, the same batches on any number of workers."""

import dataclasses
import io
import itertools
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import torch

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import build
from classifier.data.dataset import Split
from classifier.data.image_decoder import ImageDecoder
from classifier.data.images import stream
from classifier.data.images.stream import StreamedImages
from classifier.data.loader import batches
from classifier.data.readers import file_bytes
from classifier.errors import DataError


class Disk:
    """Images that encode their own number, and a record of the chunks that were read."""

    def __init__(self, count: int) -> None:
        self.count, self.read_chunks = count, []

    def read(self, rows: np.ndarray) -> np.ndarray:
        self.read_chunks.append(int(rows[0]) // stream.CHUNK)
        pixels = np.zeros((len(rows), 3, 2, 2), np.uint8)
        pixels[:, 0] = (rows % 256)[:, None, None]
        pixels[:, 1] = (rows // 256)[:, None, None]
        return pixels


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", 20)


def make_split(disk: Disk, window: int = 6) -> Split:
    images = StreamedImages(disk.read, torch.arange(disk.count), (3, 2, 2), disk.count, window)
    return Split(images, torch.arange(disk.count), tuple(map(str, range(disk.count))))


def decode_numbers(images_NCHW: torch.Tensor) -> list[int]:
    return (images_NCHW[:, 0, 0, 0].long() + 256 * images_NCHW[:, 1, 0, 0].long()).tolist()


def test_each_image_comes_once_with_its_label_from_few_chunks() -> None:
    disk = Disk(1990)
    split = make_split(disk)
    orders = []
    for epoch in range(2):
        disk.read_chunks.clear()
        seen = []
        for batch in batches(split, batch=32, seed=0, epoch=epoch):
            assert decode_numbers(batch.images_NCHW) == batch.labels_N.tolist()
            seen += batch.labels_N.tolist()
            assert isinstance(split.images_NCHW, StreamedImages)
            assert len(split.images_NCHW._chunks) <= 12
        assert sorted(seen) == list(range(1990))
        assert len(disk.read_chunks) == 100
        orders.append(seen)
    assert orders[0] != orders[1]
    chunks = [len({n // 20 for n in orders[0][start : start + 32]}) for start in range(0, 1900, 32)]
    assert min(chunks) >= 5  # not chunk by chunk


@pytest.mark.parametrize("world", [2, 3])
def test_workers_get_the_same_batches_and_read_their_own_chunks(world: int) -> None:
    alone = [batch.labels_N.tolist() for batch in batches(make_split(Disk(4000)), batch=64, seed=1, epoch=0)]
    disks = [Disk(4000) for _ in range(world)]
    shards = [batches(make_split(disk), batch=64, seed=1, epoch=0, rank=r, world=world) for r, disk in enumerate(disks)]
    together = [[n for batch in step for n in batch.labels_N.tolist()] for step in zip(*shards, strict=True)]
    assert together == alone
    assert sum(len(disk.read_chunks) for disk in disks) < 1.5 * 200
    sizes = {len(step) for step in alone}
    assert max(sizes) - min(sizes) <= 1


def test_epoch_resumes_in_its_middle() -> None:
    whole = [batch.labels_N.tolist() for batch in batches(make_split(Disk(500)), batch=32, seed=0, epoch=5)]
    resumed = [batch.labels_N.tolist() for batch in batches(make_split(Disk(500)), batch=32, seed=0, epoch=5, start=9)]
    assert resumed == whole[9:]


def test_data_set_as_a_stream_leaves_out_the_images_that_others_leave_out(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    config = DataConfig(path=str(photos), stream=True, size=8, max_corrupt=0.1, cache=str(tmp_path / "cache"))
    dataset = data.load(config)
    plain = data.load(DataConfig(path=str(photos), cache=None, size=8, max_corrupt=0.1))
    assert sum(dataset.counts.values()) == sum(plain.counts.values()) == 40
    assert any("read as a stream" in finding for finding in dataset.findings)
    assert any("1 of 41 images cannot be used and were skipped: cat/bad.png" in text for text in dataset.findings)
    by_id = {}
    for split in ("train", "validation", "test"):
        part = getattr(plain, split)
        by_id |= dict(zip(part.ids, part.images_NCHW, strict=True))
    for id_, image_CHW in zip(dataset.train.ids, dataset.train.images_NCHW, strict=True):
        assert image_CHW.equal(by_id[id_])
    assert dataset.mean == pytest.approx(plain.mean, abs=0.05)
    with pytest.raises(DataError, match=r"1 of 41 images .* more than data\.max_corrupt 1\.0%"):
        data.load(dataclasses.replace(config, max_corrupt=0.01))


def test_what_a_stream_cannot_use_is_remembered_until_a_file_changes(photos: Path, tmp_path: Path, monkeypatch) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    for path in photos.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(file_bytes, "SETTLE_SECONDS", -1)
    config = DataConfig(path=str(photos), stream=True, size=8, channels=3, max_corrupt=0.1, cache=str(tmp_path / "c"))
    checks = []
    try_block = ImageDecoder.try_block
    monkeypatch.setattr(ImageDecoder, "try_block", lambda *words: checks.append(1) or try_block(*words))
    monkeypatch.setattr(build, "compute_statistics", lambda _: ((0.5,), (0.5,)))
    for expected in (True, False):
        checks.clear()
        assert sum(data.load(config).counts.values()) == 40
        assert bool(checks) is expected
    (photos / "cat" / "bad.png").unlink()
    checks.clear()
    assert sum(data.load(config).counts.values()) == 40
    assert checks


@pytest.mark.parametrize("damaged", ['{"99": "x"}', "{}", "[" * 10_000, "null", "\n", "\n{}"])
def test_a_damaged_record_of_a_stream_is_not_believed(photos: Path, tmp_path: Path, monkeypatch, damaged: str) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    monkeypatch.setattr(file_bytes, "SETTLE_SECONDS", -1)
    config = DataConfig(path=str(photos), stream=True, size=8, channels=3, max_corrupt=0.1, cache=str(tmp_path / "c"))
    unreadable = data.load(config).split_record["unreadable"]
    [record] = (tmp_path / "c").rglob("*.json")
    record.write_text(damaged)
    assert data.load(config).split_record["unreadable"] == unreadable


def test_an_image_of_a_stream_that_is_lost_later_is_named(photos: Path) -> None:
    dataset = data.load(DataConfig(path=str(photos), stream=True, size=8, cache=None))
    for id_ in dataset.train.ids:
        (photos / id_).write_bytes(b"")
    assert isinstance(dataset.train.images_NCHW, StreamedImages)
    dataset.train.images_NCHW._chunks.clear()
    with pytest.raises(DataError, match=r"cannot be used any more: .*\.png \(the file is empty\)"):
        dataset.train.images_NCHW[:1]


def test_training_on_a_stream(verb, photos: Path) -> None:
    done = verb("train", "--data.path", photos, "--data.stream", "true", "--data.batch", "8", "--train.epochs", "2")
    assert done.code == 0, done.err
    assert done.result["epochs"] == 2


def as_tables(folder: Path, contents: Iterator[bytes]) -> None:
    for number, part in enumerate(iter(lambda: list(itertools.islice(contents, 10_000)), [])):
        rows = [{"bytes": content, "path": None} for content in part]
        images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        table = pa.table({"image": images, "label": [n % 10 for n in range(len(part))]})
        pq.write_table(table, folder / f"train-{number:05d}.parquet", row_group_size=1000)


def as_shards(folder: Path, contents: Iterator[bytes]) -> None:
    for number, part in enumerate(iter(lambda: list(itertools.islice(contents, 10_000)), [])):
        with tarfile.open(folder / f"train-{number:05d}.tar", "w") as tar:
            for n, content in enumerate(part):
                for ending, data in (("jpg", content), ("cls", str(n % 10).encode())):
                    member = tarfile.TarInfo(f"{number:03d}{n:05d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def make_jpegs(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse_HWC = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        yield simplejpeg.encode_jpeg(np.ascontiguousarray(coarse_HWC.repeat(8, 0).repeat(8, 1)))


STREAMED = """
import sys
from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import loader
dataset = data.load(DataConfig(path=sys.argv[1], stream=True, size=32, channels=3, validation=0.02, test=0.02))
most, seen = 0, 0
for batch in loader.prefetch(loader.batches(dataset.train, batch=256, seed=0, epoch=0)):
    seen += len(batch.labels_N)
    with open("/proc/self/status") as status:
        most = max(most, *(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
print(seen, most)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: anonymous memory of a process")
@pytest.mark.parametrize("write", [as_tables, as_shards])
def test_ten_times_as_many_images_take_no_more_memory(write, tmp_path: Path) -> None:
    most = {}
    for count in (20_000, 200_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write(folder, make_jpegs(count))
        done = subprocess.run([sys.executable, "-c", STREAMED, folder], capture_output=True, text=True, check=True)
        seen, most[count] = map(int, done.stdout.split())
        assert seen > 0.9 * count
    print({count: f"{kilobytes / 1e3:.0f} MB" for count, kilobytes in most.items()})
    assert most[200_000] < 1.1 * most[20_000]
