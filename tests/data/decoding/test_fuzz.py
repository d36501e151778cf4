"""Any bytes are decoded or refused, and neither takes long."""

import contextlib
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier import data
from classifier.bundle.image_reader import ImageInput, ImageReader
from classifier.config.sections import DataConfig
from classifier.data.decoding import decode
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.image_stats import compute_image_stats
from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.errors import DataError
from tests.data.audit.test_checks import as_list, as_manifest, as_parquet, as_shards
from tests.data.decoding.profiles import rgb_profile
from tests.data.faults import encoded, scene
from tests.data.readers.test_archive import pack_tar, pack_zip

FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "avif", "jpeg2000")
CASES = 10_000


def seeds() -> list[bytes]:
    found = []
    for name in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "1", "CMYK"):
            stream = io.BytesIO()
            try:
                scene(3, 24).convert(mode).save(stream, name)
            except (OSError, KeyError, ValueError):
                continue
            found.append(stream.getvalue())
    return found


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, doubled, cut out or cut off; most of all at the head, where formats decide."""
    work = bytearray(content)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(0, min(len(work), 64 if rng.random() < 0.5 else len(work)) or 1))
        length = int(rng.integers(1, 9))
        what = int(rng.integers(0, 5))
        if what == 0:
            work[at : at + length] = rng.bytes(len(work[at : at + length]))
        elif what == 1:
            work[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65535])).to_bytes(4, "big")
        elif what == 2:
            del work[at : at + length]
        elif what == 3:
            work[at:at] = work[at : at + length]
        else:
            del work[at + length :]
    return bytes(work)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to three bytes changed anywhere."""
    work = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        work[int(rng.integers(len(work)))] ^= int(rng.integers(1, 256))
    return bytes(work)


@pytest.mark.parametrize("tries", [10, pytest.param(5_000 // len(FORMATS), marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bytes_give_pixels_or_one_reason_by_every_way_in(format: str, tries: int) -> None:
    rng, reader = np.random.default_rng(0), ImageReader(ImageSpec(16, 3, "crop", 1_000_000), 10**6, 5.0)
    image = scene(3, 24)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"exif": exif, "icc_profile": rgb_profile()} if format in ("png", "jpeg", "webp", "tiff", "avif") else {}
    image.save(stream, format, **more)
    contents: list[ImageInput] = [flipped(stream.getvalue(), rng) for _ in range(tries)]
    began = time.perf_counter()
    results = reader.decode(contents)
    assert time.perf_counter() - began < 10 + 0.1 * tries
    for content, result in zip(contents, results, strict=True):
        if isinstance(result, DataError):
            assert "\n" not in str(result)
            continue
        assert result.shape == (3, 16, 16)
        with contextlib.suppress(decode.DecodeError):  # an orientation may be damaged, but it is the same everywhere
            assert isinstance(content, bytes)
            upright = decode.open_image(content, max_pixels=1_000_000)
            assert decode.read_header(content)[:2] == upright.size


@pytest.mark.slow
def test_ten_thousand_files_of_mutated_and_random_bytes() -> None:
    rng, found = np.random.default_rng(0), seeds()
    assert len(found) > 25
    read = refused = 0
    slowest = 0.0
    with pillow_limits_off():
        for case in range(CASES):
            content = (
                rng.bytes(int(rng.integers(0, 2000))) if case % 10 == 0 else mutated(found[case % len(found)], rng)
            )
            began = time.perf_counter()
            try:
                pixels = decode.decode_bytes(content, ImageSpec(16, 3, "crop", 1_000_000))
                assert pixels.shape == (3, 16, 16)
                assert compute_image_stats(content, max_pixels=1_000_000).thumb.shape == (64, 64)
                read += 1
            except decode.DecodeError as flaw:
                refused += bool(str(flaw)) and "\n" not in str(flaw)
            slowest = max(slowest, time.perf_counter() - began)
    print(f"{read} read, {refused} refused, the slowest {slowest:.2f} s")
    assert read > 500
    assert refused > 2000
    assert read + refused == CASES
    assert slowest < 10


CONTAINERS = {
    "zip": lambda home, files: pack_zip(home / "set.zip", files),
    "tar": lambda home, files: pack_tar(home / "set.tar", files),
    "manifest": as_manifest,
    "list": as_list,
    "table": as_parquet,
    "shards": as_shards,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_thousand_mutated_archives_tables_and_lists(kind: str, stream: bool, tmp_path: Path) -> None:
    files = {f"{'cat' if n % 2 else 'dog'}/{n:02d}.png": encoded(scene(n, 16), "png") for n in range(24)}
    path = CONTAINERS[kind](tmp_path, files)
    intact, rng = path.read_bytes(), np.random.default_rng(1)
    config = DataConfig(path=str(path), cache=None, size=16, channels=3, max_corrupt=0.5, stream=stream)
    loaded = refused = 0
    slowest = 0.0
    for _ in range(1_000):
        path.write_bytes(mutated(intact, rng))
        began = time.perf_counter()
        try:
            dataset = data.load(config)
            assert dataset.train.images_NCHW[: len(dataset.train)].shape[1:] == (3, 16, 16)
            loaded += 1
        except DataError as error:
            refused += "\n" not in str(error)
        slowest = max(slowest, time.perf_counter() - began)
    print(f"{kind}{', a stream' * stream}: {loaded} loaded, {refused} refused, the slowest {slowest:.2f} s")
    assert refused > 100
    assert loaded + refused == 1_000
    assert slowest < 10


def test_there_are_files_of_many_formats() -> None:
    Image.init()
    assert len(seeds()) > 25
