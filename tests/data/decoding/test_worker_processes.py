"""Decoding processes: they reply what the functions return, and survive images that hang or crash a decoder."""

import dataclasses
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.data.decoding import decode, worker_processes
from classifier.data.decoding.decode import DecodeFailure
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.tasks import Task, address
from classifier.data.decoding.worker_processes import DecodeWorker, DecodeWorkers
from classifier.data.images.jpeg_segment import JpegSegmentWriter
from classifier.data.images.pixel_segment import PixelSegmentWriter

SPEC = ImageSpec(8, 3, "crop", 10_000)
# A decoder that hangs, or crashes, on contents that say so.
BAD = """
import sys, time, os
sys.path.insert(0, sys.argv[1])
from classifier.data.decoding import decode, worker_processes
decode_general = decode.decode_general
def bad(content, spec, admit):
    if content == b"hang":
        time.sleep(3600)
    if content == b"crash":
        os.abort()
    return decode_general(content, spec, admit)
decode.decode_general = bad
worker_processes.serve(sys.argv[2:])
"""


def png(number: int, side: int = 12) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def expected_reply(content: bytes) -> bytes | DecodeFailure:
    try:
        return decode.decode_bytes(content, SPEC).tobytes()
    except decode.DecodeError as error:
        return DecodeFailure(str(error))


@pytest.fixture
def start_worker():
    workers = []

    def start(seconds: float = 30.0) -> DecodeWorker:
        workers.append(DecodeWorker(Task.pixels(SPEC), seconds))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_process_replies_what_the_function_returns(start_worker) -> None:
    contents = [png(n) for n in range(300)] + [b"", b"no image", png(0, 200)]
    replies = [*start_worker().decode(contents)]
    assert len(replies) == len(contents)
    for content, reply in zip(contents, replies, strict=True):
        assert reply == expected_reply(content)


@pytest.mark.parametrize(
    ("word", "reason"), [(b"hang", "it takes longer than 0.5 s to decode"), (b"crash", "it crashes its decoder")]
)
def test_image_that_hangs_or_crashes_the_decoder_costs_only_itself(
    start_worker, monkeypatch, word: bytes, reason: str
) -> None:
    monkeypatch.setattr(worker_processes, "_MAIN", BAD)
    contents = [png(0), png(1), word, png(2), word, png(3)]
    worker = start_worker(0.5)
    began = time.monotonic()
    replies = [*worker.decode(contents)]
    assert [isinstance(reply, DecodeFailure) for reply in replies] == [False, False, True, False, True, False]
    assert replies[2] == replies[4] == DecodeFailure(reason)
    for n, index in enumerate((0, 1, 3, 5)):
        assert replies[index] == expected_reply(png(n))
    assert time.monotonic() - began < 20


def test_many_images_in_several_processes() -> None:
    contents = {n: png(n) for n in range(500)}
    contents[77] = b"damaged"

    def read(index: int) -> bytes | DecodeFailure | None:
        return DecodeFailure("it cannot be read") if index == 78 else None if index == 79 else contents[index]

    pairs = [*DecodeWorkers(Task.pixels(SPEC), 30.0, processes=3).map(read, range(500))]
    replies = dict(pairs)
    assert len(replies) == len(pairs)
    assert sorted(replies) == [n for n in range(500) if n != 79]
    assert replies[78] == DecodeFailure("it cannot be read")
    assert replies[77] == expected_reply(contents[77])
    assert replies[499] == expected_reply(contents[499])


def test_error_of_a_reader_stops_the_pool() -> None:
    calls = []

    def read(index: int) -> bytes:
        calls.append(index)
        if index == 3:
            raise KeyError("gone")
        return png(0)

    with pytest.raises(KeyError, match="gone"):
        list(DecodeWorkers(Task.pixels(SPEC), 30.0, processes=2).map(read, range(10_000)))
    assert len(calls) < 1_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("stored_as", ["pixels", "jpeg"])
def test_full_disk_is_not_blamed_on_an_image(stored_as: str, tmp_path: Path) -> None:
    shape = (3, 64, 64)
    writer = {"pixels": PixelSegmentWriter, "jpeg": JpegSegmentWriter}[stored_as].create(tmp_path / "segment", 2, shape)
    full = dataclasses.replace(writer, path=Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        full.write(0, np.zeros(shape, np.uint8))
    if stored_as == "pixels":  # its sums are memory-mapped, which a device does not support
        return
    worker = DecodeWorker(Task.rows(dataclasses.replace(SPEC, size=64), full.to_words()), 30.0)
    with pytest.raises(OSError, match="No space left"):
        list(worker.decode([address(0, png(0, 80))]))
    worker.close()
