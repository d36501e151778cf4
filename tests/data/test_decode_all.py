"""All images of a source: size and channels are inferred, all are decoded, errors are listed."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import decode_all, image_decoder
from classifier.data.decode_all import decode_source
from classifier.data.decoding import decode, threads
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.threads import run_in_threads
from classifier.data.infer_shape import infer_shape
from classifier.data.readers.file_bytes import compute_digest
from classifier.data.readers.source import Source, from_arrays, from_files
from classifier.errors import DataError

RANDOM = np.random.default_rng(0)


def of_sizes(folder: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Source:
    rows = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        Image.new(mode, size, number if mode == "L" else (number, 0, 9)).save(path)
        rows.append((path.name, path, "ab"[number % 2], -1))
    return from_files("x", rows)


def of_arrays(images_NCHW: np.ndarray) -> Source:
    return from_arrays("x", {"train": (images_NCHW, np.arange(len(images_NCHW)) % 2)}, ("a", "b"), kind="photos")


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(28, 28)] * 3, 28),
        ([(5, 5)] * 3, 5),
        ([(64, 64)] * 3, 64),
        ([(3, 3)] * 3, 16),
        ([(100, 100)] * 3, 96),
        ([(640, 480)] * 3, 128),
        ([(40, 60), (52, 50), (90, 70)], 48),
        ([(28, 28), (28, 30)], 32),
        ([(300, 20)] * 2, 16),
        ([(32, 32), (33, 33), (33, 33)], 32),
    ],
)
def test_size_is_inferred(sizes: list[tuple[int, int]], size: int, tmp_path: Path) -> None:
    source = of_sizes(tmp_path, sizes)
    assert infer_shape(source, DataConfig()) == (size, 3)
    assert infer_shape(source, DataConfig(size=9)) == (9, 3)
    assert decode_source(source, DataConfig()).images_NCHW.shape == (len(sizes), 3, size, size)


def test_channels_are_inferred(tmp_path: Path) -> None:
    grey = of_sizes(tmp_path, [(8, 8)] * 4, "L")
    assert infer_shape(grey, DataConfig()) == (8, 1)
    assert infer_shape(grey, DataConfig(channels=3)) == (8, 3)
    Image.new("RGB", (8, 8), (7, 7, 7)).save(tmp_path / "2.png")
    assert infer_shape(grey, DataConfig()) == (8, 1)
    Image.new("RGB", (8, 8), (7, 7, 8)).save(tmp_path / "2.png")
    assert infer_shape(grey, DataConfig()) == (8, 3)
    assert infer_shape(of_arrays(np.zeros((4, 3, 8, 8), np.uint8)), DataConfig()) == (8, 1)
    assert infer_shape(of_arrays(RANDOM.integers(0, 256, (4, 3, 8, 8), np.uint8)), DataConfig()) == (8, 3)


def test_files_are_decoded_as_by_decode_load(tmp_path: Path) -> None:
    source = of_sizes(tmp_path, [(n + 9, 20 - n) for n in range(11)])
    config = DataConfig(size=7, channels=3, fit="pad")
    found = decode_source(source, config)
    assert found.errors == {}
    for n in range(11):
        path = tmp_path / f"{n}.png"
        alone = decode.load(path, ImageSpec(7, 3, "pad", config.max_pixels))
        np.testing.assert_array_equal(found.images_NCHW[:][n], alone)
        assert found.digests_N[n].tobytes() == compute_digest(path.read_bytes())


def deep_files(folder: Path, factor: int) -> None:
    """Two classes of 12 bits, or with a factor of 16, of 16 bits."""
    for number in range(24):
        values = RANDOM.integers(0, 4096, (9, 9), np.uint16) * factor
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint16)).save(path)


def test_files_of_16_bits_that_use_few_are_told(tmp_path: Path) -> None:
    for factor in (1, 16):
        deep_files(tmp_path / str(factor), factor)
        findings = data.load(DataConfig(path=str(tmp_path / str(factor)), cache=None)).findings
        assert any("files of 16 bits use 12 of them at most" in text for text in findings) == (factor == 1)


def test_few_bits_explain_why_images_look_alike(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(1, 90, (9, 9), np.uint16)).save(path)
    with pytest.raises(DataError, match=r"copies of one.*; .*files of 16 bits use 7 of them"):
        data.load(DataConfig(path=str(tmp_path), cache=None))


def test_file_is_read_once_if_nothing_is_to_be_inferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, reads = of_sizes(tmp_path, [(8, 8)] * 20), []
    read = image_decoder.read_image_bytes

    def counted(file: Path, max_bytes: int) -> bytes:
        reads.append(file)
        return read(file, max_bytes)

    monkeypatch.setattr(image_decoder, "read_image_bytes", counted)
    decode_source(source, DataConfig(size=8, channels=3))
    assert sorted(reads) == sorted(tmp_path.glob("*.png"))


def test_errors_by_index(tmp_path: Path) -> None:
    source = of_sizes(tmp_path, [(8, 8)] * 6)
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "4.png").unlink()
    (tmp_path / "5.png").write_bytes((tmp_path / "0.png").read_bytes()[:-30])
    found = decode_source(source, DataConfig())
    assert list(found.errors) == [1, 4, 5]
    assert found.errors[1] == "the file is empty"
    assert "cannot be read (No such file" in found.errors[4]
    assert "truncated" in found.errors[5]
    for path in tmp_path.glob("*.png"):
        path.write_text("no image")
    assert len(decode_source(source, DataConfig()).errors) == 6


def test_arrays_are_unchanged_or_resized() -> None:
    images_NCHW = RANDOM.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    source = of_arrays(images_NCHW)
    found = decode_source(source, DataConfig())
    np.testing.assert_array_equal(found.images_NCHW, images_NCHW)
    assert len(set(found.digests_N.tolist())) == 6
    np.testing.assert_array_equal(
        decode_source(source, DataConfig(channels=3)).images_NCHW, images_NCHW.repeat(3, axis=1)
    )
    larger = decode_source(source, DataConfig(size=16))
    assert larger.digests_N.tolist() == found.digests_N.tolist()
    for image, small in zip(larger.images_NCHW, images_NCHW, strict=True):
        alone = decode.prepare(Image.fromarray(small[0]), ImageSpec(16, 1, "crop", 10**8))
        np.testing.assert_array_equal(image, alone)
    colour = of_arrays(RANDOM.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))
    grey = decode_source(colour, DataConfig(channels=1)).images_NCHW[:]
    assert grey.shape == (6, 1, 8, 8)
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    np.testing.assert_allclose(grey[:, 0], (np.asarray(colour.images) * weights).sum(1), atol=1)


def test_images_that_do_not_fit_in_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = of_sizes(tmp_path, [(8, 8)] * 4)
    sizes: dict[Any, int] = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(decode_all.os, "sysconf", sizes.__getitem__)
    decode_source(source, DataConfig())
    with pytest.raises(DataError, match=r"x: 4 images of 2048 x 2048 x 3 need 0 GB .* set a smaller --data\.size"):
        decode_source(source, DataConfig(size=2048, cache=None))


def test_error_in_a_thread_stops_the_others() -> None:
    calls: list[int] = []
    started = threading.Event()

    def work(index: int) -> None:
        calls.append(index)
        if index == 0:
            started.wait(timeout=30)
            raise KeyboardInterrupt
        started.set()

    with pytest.raises(KeyboardInterrupt):
        run_in_two_threads(work)
    assert len(calls) < 10**6


def run_in_two_threads(work: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "available_cores", lambda: 2)
        run_in_threads(work, range(10**6))


def test_image_that_hangs_is_abandoned(monkeypatch, paint, tmp_path: Path) -> None:
    """In threads, which cannot be killed: in a small data set, and while its size is inferred."""
    for n in range(20):
        paint(tmp_path / "set" / ("cat" if n % 2 else "dog") / f"{n}.png")
    hangs = (tmp_path / "set" / "cat" / "7.png").read_bytes()
    decode_general, measure_image, released = decode.decode_general, decode.measure_image, threading.Event()

    def slow(function):
        def work(content, *spec, **settings):
            if content == hangs:
                released.wait(timeout=60)
            return function(content, *spec, **settings)

        return work

    monkeypatch.setattr(decode, "decode_general", slow(decode_general))
    monkeypatch.setattr(decode, "measure_image", slow(measure_image))
    config = DataConfig(path=str(tmp_path / "set"), cache=None, max_seconds=0.5)
    began = time.monotonic()
    found = decode_source(data.open_source(config), config)
    assert time.monotonic() - began < 20
    released.set()
    assert list(found.errors.values()) == ["it takes longer than 0.5 s to decode"]
    assert len(found.images_NCHW) == 20
