"""The cache: each content is decoded once, however many processes ask for it, and whatever crashes."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import image_decoder
from classifier.data.dataset import Dataset
from classifier.data.decoding import decode, image_file
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.images.arrays import MappedImages, Segment, concatenate, select
from classifier.data.images.file_states import FILES
from classifier.data.images.pixel_segment import DIGEST, PIXELS, SUMS
from classifier.data.readers import file_bytes
from classifier.errors import DataError
from tests.data.decoding.profiles import rgb_profile

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(photos: Path, tmp_path: Path) -> DataConfig:
    settle(photos)
    return DataConfig(path=str(photos), cache=str(tmp_path / "cache"), size=8, channels=3)


def settle(folder: Path) -> None:
    """Backdate its files by an hour: the changes of a new file may go unnoticed."""
    for path in folder.rglob("*.*"):
        os.utime(path, (time.time() - 3600, time.time() - 3600))


@pytest.fixture(autouse=True)
def no_settle_time(monkeypatch) -> None:
    monkeypatch.setattr(file_bytes, "SETTLE_SECONDS", 0.0)  # the time of change of an inode cannot be set


@pytest.fixture
def work(monkeypatch) -> dict[str, int]:
    """Counts files that were read and decoded."""
    counts = {"read": 0, "decoded": 0}
    read, decode_bytes = image_decoder.read_image_bytes, decode.decode_bytes

    def counted_read(*words):
        counts["read"] += 1
        return read(*words)

    def counted_decode(*words):
        counts["decoded"] += 1
        return decode_bytes(*words)

    monkeypatch.setattr(image_decoder, "read_image_bytes", counted_read)
    monkeypatch.setattr(decode, "decode_bytes", counted_decode)
    return counts


def test_cached_images_equal_images_in_memory(config: DataConfig) -> None:
    import dataclasses

    mapped, plain = data.load(config), data.load(dataclasses.replace(config, cache=None))
    assert isinstance(mapped.train.images_NCHW, MappedImages)
    assert isinstance(plain.train.images_NCHW, torch.Tensor)
    for split in ("train", "validation", "test"):
        one, other = getattr(mapped, split), getattr(plain, split)
        assert one.ids == other.ids
        assert one.images_NCHW[:].equal(other.images_NCHW)
        assert one.images_NCHW.shape == other.images_NCHW.shape
        index = torch.randperm(len(one))
        assert one.images_NCHW[index].equal(other.images_NCHW[index])
        assert one.images_NCHW[2:5].equal(other.images_NCHW[2:5])
    assert (mapped.mean, mapped.std, mapped.fingerprint) == (plain.mean, plain.std, plain.fingerprint)
    values = plain.train.images_NCHW.double() / 255
    assert mapped.mean == pytest.approx(values.mean((0, 2, 3)).tolist())
    assert mapped.std == pytest.approx(values.std((0, 2, 3), correction=0).tolist())


def test_second_load_reads_and_decodes_nothing(config: DataConfig, work) -> None:
    first = data.load(config)
    assert work == {"read": 40, "decoded": 40}
    again = data.load(config)
    assert work == {"read": 40, "decoded": 40}
    assert again.fingerprint == first.fingerprint


def test_only_new_files_are_decoded(config: DataConfig, work, paint) -> None:
    data.load(config)
    for n in range(3):
        paint(Path(config.path) / "cat" / f"new{n}.png")
    (Path(config.path) / "cat" / "copy.png").write_bytes((Path(config.path) / "cat" / "03.png").read_bytes())
    grown = data.load(config)
    assert work == {"read": 44, "decoded": 43}
    assert sum(grown.counts.values()) == 44
    assert len(list(Path(config.cache or "").rglob("segment-*.arrow"))) == 2
    ids = {id_: split for split in ("train", "validation", "test") for id_ in getattr(grown, split).ids}
    part = getattr(grown, ids["cat/new1.png"])
    image = part.images_NCHW[torch.tensor([part.ids.index("cat/new1.png")])][0]
    path = Path(config.path) / "cat" / "new1.png"
    expected = decode.load(path, ImageSpec(8, 3, "crop", 10**8))
    np.testing.assert_array_equal(image.numpy(), expected)
    (Path(config.path) / "cat" / "new0.png").touch()
    data.load(config)
    assert work == {"read": 45, "decoded": 44}  # one more for `expected`
    paint(Path(config.path) / "cat" / "new0.png")
    data.load(config)
    assert work == {"read": 46, "decoded": 45}


def test_other_settings_have_images_of_their_own(config: DataConfig, work) -> None:
    import dataclasses

    data.load(config)
    data.load(dataclasses.replace(config, size=16))
    data.load(dataclasses.replace(config, fit="pad"))
    assert work["decoded"] == 120
    data.load(config)
    assert work["decoded"] == 120


def test_error_is_remembered_until_the_file_is_fixed(config: DataConfig, work, paint) -> None:
    bad = Path(config.path) / "dog" / "bad.png"
    bad.write_bytes(b"no image")
    import dataclasses

    config = dataclasses.replace(config, max_corrupt=0.1)
    for _ in range(2):
        loaded = data.load(config)
        assert loaded.split_record["unreadable"] == [
            {"id": "dog/bad.png", "reason": "it is not an image, or its format is unknown"}
        ]
        assert work["read"] == 41
    paint(bad)
    assert data.load(config).split_record["unreadable"] == []
    assert sum(data.load(config).counts.values()) == 41


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_that_could_not_be_read_is_read_again(config: DataConfig, monkeypatch, stream: bool) -> None:
    import dataclasses

    config = dataclasses.replace(config, max_corrupt=0.1, stream=stream)
    read = image_decoder.read_image_bytes

    def reset(file, max_bytes: int) -> bytes:
        if str(file).endswith("0.png"):
            raise image_file.DecodeError(f"{file_bytes.UNREADABLE} (Connection reset by peer)")
        return read(file, max_bytes)

    monkeypatch.setattr(image_decoder, "read_image_bytes", reset)
    assert data.load(config).split_record["unreadable"]
    monkeypatch.setattr(image_decoder, "read_image_bytes", read)
    assert data.load(config).split_record["unreadable"] == []


def test_least_recently_used_segments_are_evicted(config: DataConfig) -> None:
    import dataclasses

    old = data.load(config)
    root = Path(config.cache or "")
    first = next(root.rglob("segment-*.arrow"))
    os.utime(first, (1, 1))
    small = dataclasses.replace(config, cache_gb=first.stat().st_size * 1.5e-9, fit="pad")
    data.load(small)
    assert not first.exists()
    assert len(list(root.rglob("segment-*.arrow"))) == 1
    assert old.train.images_NCHW[:].shape[0] == len(old.train)  # whoever has it mapped can still read it
    again = data.load(config)
    assert again.train.images_NCHW[:].equal(old.train.images_NCHW[:])


def test_images_are_pickled_by_path(config: DataConfig) -> None:
    loaded = data.load(config)
    images = loaded.train.images_NCHW
    assert isinstance(images, MappedImages)
    content = pickle.dumps(images)
    assert len(content) < 5000
    assert pickle.loads(content)[:].equal(images[:])  # noqa: S301 - made two lines above
    both = concatenate(images, loaded.test.images_NCHW)
    assert isinstance(both, MappedImages)
    assert both[:].equal(torch.cat([images[:], loaded.test.images_NCHW[:]]))
    index = torch.tensor([3, 1])
    assert select(images, index)[:].equal(images[index])


def test_unwritable_cache_is_an_error(config: DataConfig, tmp_path: Path) -> None:
    import dataclasses

    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be written .*--data\.cache"):
        data.load(dataclasses.replace(config, cache=str(tmp_path / "file")))


def test_a_cache_that_cannot_be_locked_is_an_error(config: DataConfig) -> None:
    data.load(config)
    lock = next(Path(config.cache or "").rglob(".lock"))
    lock.unlink()
    lock.mkdir()
    for segment in lock.parent.glob("segment-*"):
        segment.unlink()
    with pytest.raises(DataError, match=r"cannot be locked \(Is a directory\): give another folder as --data\.cache"):
        data.load(config)


CODE = """
import sys
from classifier import data
from classifier.config.sections import DataConfig
loaded = data.load(DataConfig(path=sys.argv[1], cache=sys.argv[2], size=32))
images = loaded.train.images_NCHW
print(loaded.fingerprint, int(images[:].long().sum()), len(images.segments))
"""


def start(folder: Path, cache: Path) -> subprocess.Popen:
    words = [sys.executable, "-c", CODE, str(folder), str(cache)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """20,000 different JPEG photographs of two classes, small ones."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(20_000):
        class_folder = folder / "ab"[number % 2]
        class_folder.mkdir(exist_ok=True)
        pixels = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(class_folder / f"{number:05d}.jpg", quality=90)
    return folder


@pytest.mark.slow
def test_eight_processes_at_once(many: Path, tmp_path: Path) -> None:
    processes = [start(many, tmp_path / "cache") for _ in range(8)]
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert len({out for out, _ in outputs}) == 1
    assert sum("is decoding these images" in err for _, err in outputs) <= 7
    assert len(list((tmp_path / "cache").rglob("segment-*.arrow"))) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.slow
def test_kill_while_it_is_built(many: Path, tmp_path: Path) -> None:
    out, err = start(many, tmp_path / "whole").communicate(timeout=500)
    assert out, err
    rng = np.random.default_rng(1)
    for _ in range(5):
        process = start(many, tmp_path / "killed")
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed").rglob("*.part")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    again, err = start(many, tmp_path / "killed").communicate(timeout=500)
    assert again == out, err
    assert not list((tmp_path / "killed").rglob("*.part"))


def test_corrupted_segment_is_decoded_again(config: DataConfig, work, caplog) -> None:
    first = data.load(config)
    path = next(Path(config.cache or "").rglob("segment-*.arrow"))
    content = path.read_bytes()
    images = first.train.images_NCHW[:]
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    again = data.load(config)
    assert "is corrupted" in caplog.text
    assert work["decoded"] == 80
    assert again.train.images_NCHW[:].equal(images)


def damage(content: bytearray, segment: Segment, rows: list[int]) -> None:
    """Flip a byte in the middle of each of these rows."""
    assert segment.pixels is not None
    start = content.index(segment.pixels.tobytes())
    for row in rows:
        content[start + int(segment.pixels[0].nbytes * (row + 0.5))] ^= 1


def load_all(config: DataConfig) -> tuple[torch.Tensor, Dataset]:
    loaded = data.load(config)
    return torch.cat([getattr(loaded, split).images_NCHW[:] for split in ("train", "validation", "test")]), loaded


@pytest.mark.parametrize("stored_as", ["pixels", "jpeg"])
@pytest.mark.parametrize("damaged", [1, 20, 40])
def test_damaged_rows_are_decoded_again_and_told(config: DataConfig, work, caplog, stored_as, damaged) -> None:
    import dataclasses

    config = dataclasses.replace(config, cache_as=stored_as)
    images, first = load_all(config)
    path = next(Path(config.cache or "").rglob("segment-*.arrow"))
    segment = Segment.open(path)
    content = bytearray(path.read_bytes())
    if segment.jpegs is not None:
        ends, jpegs = segment.jpegs
        start = content.index(jpegs.tobytes())
        for row in range(damaged):
            content[start + ends[row] + 700 : start + ends[row] + 703] = b"\0\0\0"
    elif damaged == 20:  # half a segment of zeros
        assert segment.pixels is not None
        half = segment.pixels[:20].nbytes
        start = content.index(segment.pixels.tobytes())
        content[start : start + half] = bytes(half)
    else:
        damage(content, segment, [*range(damaged)])
    del segment
    path.write_bytes(content)
    for _ in range(2):  # the second time, the intact rows of the new segment are found
        again, loaded = load_all(config)
        assert again.equal(images)
        assert (loaded.mean, loaded.std, loaded.fingerprint) == (first.mean, first.std, first.fingerprint)
    assert work["decoded"] == 40 + damaged
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{damaged} images in {path.parent} are damaged: they are decoded again"]


def test_any_byte_of_the_cache_may_change(config: DataConfig, caplog) -> None:
    """Wherever a byte is flipped in a segment or in the record of files, the images and statistics are the same."""
    images, first = load_all(config)
    paths = sorted(Path(config.cache or "").rglob("*.arrow"))
    contents = {path: path.read_bytes() for path in paths}
    rng = np.random.default_rng(0)
    for n in range(200):
        for path in Path(config.cache or "").rglob("*.arrow"):
            path.unlink()
        for path, content in contents.items():
            changed = bytearray(content)
            if path.name.startswith("segment-") or n % 4 == 0:
                changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
        again, loaded = load_all(config)
        assert again.equal(images)
        assert (loaded.mean, loaded.std, loaded.fingerprint) == (first.mean, first.std, first.fingerprint)
    assert "images in" in caplog.text
    assert "is corrupted" in caplog.text


def make_earlier(cache: Path) -> None:
    """Turn its segment into one of an earlier version: without hashes, and not named after its columns."""
    path = next(cache.rglob("segment-*.arrow"))
    with pa.memory_map(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
        batch, old = batch.select([PIXELS, DIGEST, SUMS]), path.with_name("segment-0123456789abcdef.arrow")
        with pa.OSFile(str(old), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    path.unlink()


def test_segments_of_an_earlier_version_are_used(config: DataConfig, work) -> None:
    images, first = load_all(config)
    make_earlier(Path(config.cache or ""))
    again, loaded = load_all(config)
    assert again.equal(images)
    assert loaded.fingerprint == first.fingerprint
    assert work == {"read": 40, "decoded": 40}


def test_images_that_an_earlier_version_decoded_otherwise_are_decoded_again(config: DataConfig, work) -> None:
    path = Path(config.path) / "cat" / "00.png"
    with Image.open(path) as image:
        image.save(path, icc_profile=rgb_profile())
    settle(Path(config.path))
    images, first = load_all(config)
    make_earlier(Path(config.cache or ""))
    next(Path(config.cache or "").rglob(FILES)).rename(Path(config.cache or "") / "files.arrow")
    for expected in ({"read": 80, "decoded": 41}, {"read": 80, "decoded": 41}):
        again, loaded = load_all(config)
        assert again.equal(images)
        assert loaded.fingerprint == first.fingerprint
        assert work == expected


def test_without_a_writable_home_images_are_decoded_in_memory(
    config: DataConfig, tmp_path: Path, monkeypatch, caplog
) -> None:
    import dataclasses

    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    loaded = data.load(dataclasses.replace(config, cache=DataConfig().cache))
    assert isinstance(loaded.train.images_NCHW, torch.Tensor)
    assert "decoded in memory" in caplog.text


@pytest.mark.parametrize("name", ["segment-*.arrow", "files-2.arrow"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_a_cache_is_no_part_of_it(config: DataConfig, name: str, make) -> None:
    fingerprint = data.load(config).fingerprint
    path = next(Path(config.cache or "").rglob(name))
    make(path.with_name(f"{path.stem}0{path.suffix}") if name.startswith("segment") else _without(path))
    assert data.load(config).fingerprint == fingerprint


def _without(path: Path) -> Path:
    path.unlink()
    return path


def test_a_corrupted_segment_of_another_user_is_left_there(config: DataConfig, monkeypatch, caplog) -> None:
    data.load(config)
    segment = next(Path(config.cache or "").rglob("segment-*"))
    segment.with_name("segment-other.arrow").write_bytes(b"no segment")

    def refuse(*_, **__) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    data.load(config)
    assert "segment-other.arrow is corrupted" in caplog.text


def test_a_full_disk_loses_only_what_is_known_of_files(config: DataConfig, monkeypatch, caplog) -> None:
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("classifier.data.images.cache.write_states", full)
        fingerprint = data.load(config).fingerprint
    assert "cannot be written (No space left on device): the next run reads all files again" in caplog.text
    assert data.load(config).fingerprint == fingerprint


def test_full_disk_is_reported_and_not_blamed_on_an_image(config: DataConfig, monkeypatch) -> None:
    from classifier.data.images.pixel_segment import PixelSegmentWriter

    write = PixelSegmentWriter.write

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PixelSegmentWriter, "write", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\).*--data\.cache"):
        data.load(config)
    monkeypatch.setattr(PixelSegmentWriter, "write", write)
    assert not any("cannot be used" in finding for finding in data.load(config).findings)
    assert not list(Path(config.cache or "").rglob("*.part"))
