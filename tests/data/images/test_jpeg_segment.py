"""Images cached as JPEGs: nearly the same, in less space, whichever process writes them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import decode_all
from classifier.data.images.arrays import MappedImages, Segment
from classifier.data.images.jpeg_segment import JpegSegmentWriter
from classifier.errors import DataError
from tests.data.faults import encoded, scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eighty images: half of them JPEGs, which threads decode, the others for processes; and a corrupted one."""
    for n in range(80):
        ending = "jpg" if n % 2 else "png"
        path = tmp_path / "set" / ("cat" if n % 3 else "dog") / f"{n:02d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(scene(n), "jpeg" if n % 2 else "png"))
    (tmp_path / "set" / "cat" / "zz.png").write_bytes(b"no image")
    return tmp_path / "set"


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (24, 3), (24, 1)])
def test_jpegs_are_close_to_pixels(folder: Path, tmp_path: Path, size: int, channels: int) -> None:
    settings = {"path": str(folder), "cache": str(tmp_path / "cache"), "size": size, "channels": channels}
    config = DataConfig(**settings, max_corrupt=0.1)
    as_jpeg = dataclasses.replace(config, cache_as="jpeg")
    pixels, jpegs = data.load(config), data.load(as_jpeg)
    again = data.load(as_jpeg)
    assert any("JPEGs of quality 95" in finding for finding in jpegs.findings)
    assert not any("JPEG" in finding for finding in pixels.findings)
    assert pixels.fingerprint == jpegs.fingerprint == again.fingerprint
    assert (pixels.mean, pixels.std) == (jpegs.mean, jpegs.std)
    for split in ("train", "validation", "test"):
        one, other, third = (getattr(dataset, split).images_NCHW for dataset in (pixels, jpegs, again))
        assert other.shape == one.shape
        assert (one[:].float() - other[:].float()).abs().mean() < 4
        assert other[:].equal(third[:])
        index = torch.randperm(len(one))
        assert other[index].equal(other[:][index])
        assert other[index].stride() == one[index].stride()
    assert len(list((tmp_path / "cache").rglob("*.part"))) == 0


def test_auto_depends_on_the_size_of_the_pixels() -> None:
    for gigabytes, stored_as in ((1.0, "pixels"), (0.29, "jpeg")):
        config = DataConfig(cache_gb=gigabytes)
        assert decode_all.choose_cache_format(config, (3, 224, 224), 1000) == stored_as
        assert (
            decode_all.choose_cache_format(dataclasses.replace(config, cache_as="pixels"), (3, 224, 224), 1000)
            == "pixels"
        )


def test_photographs_take_a_quarter_at_most(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_images

    writer = JpegSegmentWriter.create(tmp_path / "writer", 40, (3, 200, 200))
    rng = np.random.default_rng(0)
    for row in range(40):
        photograph = load_sample_images().images[row % 2]
        top, left = rng.integers(0, 200, 2)
        writer.write(row, photograph[top : top + 200, left : left + 200].transpose(2, 0, 1))
    writer.finish({row: bytes([row]) * 16 for row in range(40)})
    assert writer.path.stat().st_size < 40 * 3 * 200 * 200 / 4


def test_processes_append_to_one_file(tmp_path: Path) -> None:
    writer = JpegSegmentWriter.create(tmp_path / "writer", 200, (3, 64, 64))
    code = (
        "import sys, numpy as np; from classifier.data.images.jpeg_segment import open_writer; "
        "writer = open_writer(sys.argv[2:]); "
        "[writer.write(n, np.full((3, 64, 64), n, np.uint8)) for n in range(int(sys.argv[1]), 200, 4)]; "
        "assert 'torch' not in sys.modules"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(n), *writer.to_words()]) for n in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    writer.finish({row: bytes([row]) * 16 for row in range(1, 200)})  # the first has no digest
    segment = Segment.open(writer.path)
    assert len(segment) == 199
    images_NCHW = MappedImages((segment,), torch.arange(199), (3, 64, 64))[:]
    assert images_NCHW.flatten(1).float().mean(1).round().tolist() == list(range(1, 200))
    assert segment.sums_NC2[:, 0, 0].tolist() == [64 // 4 * 64 * n for n in range(1, 200)]  # summed_lines


def test_corrupted_segment_is_an_error(tmp_path: Path) -> None:
    writer = JpegSegmentWriter.create(tmp_path / "writer", 1, (3, 64, 64))
    writer.write(0, np.full((3, 64, 64), 5, np.uint8))
    writer.finish({0: b"x" * 16})
    content = bytearray(writer.path.read_bytes())
    content[content.index(b"\xff\xd8\xff")] = 0
    writer.path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"writer is corrupted .* delete it"):
        MappedImages((Segment.open(writer.path),), torch.arange(1), (3, 64, 64))[:]
