"""Processes that decode: as fast as the pictures are, and none the worse for one that hangs or kills."""

import dataclasses
import functools
import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.data.decoding import decode, worker_processes
from classifier.data.decoding.worker_processes import Decoder, decoded, for_row
from classifier.data.images.jpeg_segment import JpegSegmentWriter
from classifier.data.images.pixel_segment import PixelSegmentWriter

SETTINGS = {"size": 8, "channels": 3, "fit": "crop", "max_pixels": 10_000}
# A decoder that hangs, or dies, on contents that say so.
BAD = """
import sys, time, os
sys.path.insert(0, sys.argv[1])
from classifier.data.decoding import decode, worker_processes as decoder
thorough = decode.thorough
def bad(content, **settings):
    if content == b"hang":
        time.sleep(3600)
    if content == b"die":
        os.abort()
    return thorough(content, **settings)
decode.thorough = bad
decoder.serve(sys.argv[2:])
"""


def png(number: int, side: int = 12) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def wanted(content: bytes) -> bytes | str:
    try:
        return decode.loaded(content, **SETTINGS).tobytes()
    except decode.DecodeError as flaw:
        return str(flaw)


@pytest.fixture
def made():
    decoders = []

    def make(seconds: float = 30.0) -> Decoder:
        decoders.append(Decoder("pixels", *SETTINGS.values(), length=3 * 64, seconds=seconds))
        return decoders[-1]

    yield make
    for one in decoders:
        one.close()


def test_a_process_answers_what_the_function_does(made) -> None:
    contents = [png(n) for n in range(300)] + [b"", b"no image", png(0, 200)]
    answers = [*made()(contents)]
    assert len(answers) == len(contents)
    for content, answer in zip(contents, answers, strict=True):
        assert answer == wanted(content)


@pytest.mark.parametrize(
    ("word", "said"), [(b"hang", "it takes longer than 0.5 s to decode"), (b"die", "it ends its decoder")]
)
def test_a_picture_that_hangs_or_kills_costs_itself_alone(made, monkeypatch, word: bytes, said: str) -> None:
    monkeypatch.setattr(worker_processes, "_MAIN", BAD)
    contents = [png(0), png(1), word, png(2), word, png(3)]
    one = made(0.5)
    began = time.monotonic()
    answers = [*one(contents)]
    assert [isinstance(answer, str) for answer in answers] == [False, False, True, False, True, False]
    assert answers[2] == answers[4] == said
    for n, place in enumerate((0, 1, 3, 5)):
        assert answers[place] == wanted(png(n))
    assert time.monotonic() - began < 20


def test_many_pictures_in_several_processes() -> None:
    contents = {n: png(n) for n in range(500)}
    contents[77] = b"damaged"
    answers, lock = {}, threading.Lock()

    def take(index: int, answer) -> None:
        with lock:
            assert index not in answers
            answers[index] = answer

    def content(index: int):
        return "it cannot be read" if index == 78 else None if index == 79 else contents[index]

    make = functools.partial(Decoder, "pixels", *SETTINGS.values(), length=3 * 64, seconds=30.0)
    decoded(make, content, range(500), take, processes=3)
    assert sorted(answers) == [n for n in range(500) if n != 79]
    assert answers[78] == "it cannot be read"
    assert "no image" in answers[77]
    assert answers[499] == wanted(contents[499])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("kept_as", ["pixels", "jpeg"])
def test_a_full_disk_is_no_fault_of_a_picture(kept_as: str, tmp_path: Path) -> None:
    shape = (3, 64, 64)
    draft = {"pixels": PixelSegmentWriter, "jpeg": JpegSegmentWriter}[kept_as].begin(tmp_path / "draft", 2, shape)
    full = dataclasses.replace(draft, path=Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        full.put(0, np.zeros(shape, np.uint8))
    if kept_as == "pixels":  # its sums lie in a map, which a device has not
        return
    one = Decoder("rows", 64, *[*SETTINGS.values()][1:], *full.words(), length=0, seconds=30.0)
    with pytest.raises(OSError, match="No space left"):
        list(one([for_row(0, png(0, 80))]))
    one.close()
