"""No image takes long, or much memory, whatever its bytes say; large images share a budget."""

import dataclasses
import io
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.data.decoding import bounded, image_file
from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.memory import MemoryBudget
from classifier.data.decoding.tasks import Task, unpack_measurement
from tests.data.decoding.test_colours import png
from tests.data.decoding.test_decode import encoded

SPEC = ImageSpec(8, 3, "crop", 10**8)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose second scan comes again and again."""
    content = encoded(PHOTO, "JPEG", progressive=True)
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    end = content.index(b"\xff\xc4", second)
    return content[:second] + content[second:end] * count + content[end:]


def tiff(entries: bytes, count: int, body: bytes = b"") -> bytes:
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + body


def tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, count, value)


SIZE = tag(256, 3, 1, 40) + tag(257, 3, 1, 30)
PIXEL_ROW = bytes(120)
BOMBS = {
    "a JPEG of 3,000 scans": many_scans(3000),
    "a JPEG of two million segments": encoded(PHOTO, "JPEG")[:2] + b"\xff\xe1\0\x02" * 2_000_000,
    "a TIFF whose tags all hold the whole file": tiff(
        SIZE + b"".join(tag(1000 + n, 7, 4_000_000, 8) for n in range(20_000)), 20_002, bytes(4_000_000)
    ),
    "a TIFF of absurd sizes": tiff(tag(256, 3, 2**32 - 1, 8) + tag(257, 3, 2**31 - 1, 30), 2, bytes(50)),
    "a TIFF of a billion strips": tiff(SIZE + tag(273, 4, 10**9, 8) + tag(279, 4, 10**9, 8), 4, bytes(90_000)),
    "a PNG of 200 texts of 1 MB": png(
        40, 30, 8, 2, PIXEL_ROW, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))] * 200
    ),
    "a PNG with a profile of 200 MB": png(
        40, 30, 8, 2, PIXEL_ROW, (b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * 10**8)))
    ),
    "a WebP of 16384 x 16384": b"RIFF"
    + struct.pack("<I", 100)
    + b"WEBPVP8X\x0a\0\0\0\x02\0\0\0"
    + b"\xff\x3f\0" * 2
    + bytes(90),
    "a BMP of 60000 x 60000": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    "a PPM of 99999 x 99999": b"P6 99999 99999 255\n",
}
HARMLESS = {
    "80 scans": many_scans(70),
    "a PNG with 5 MB of EXIF that refers to itself": png(
        40, 30, 8, 2, PIXEL_ROW, (b"eXIf", b"MM\0*" + struct.pack(">IH", 8, 60_000) + bytes(5_000_000))
    ),
    "a TIFF of 1,000 frames": encoded(
        PHOTO.resize((9, 9)), "TIFF", save_all=True, append_images=[PHOTO.resize((9, 9))] * 99
    ),
}


@pytest.mark.parametrize("name", [*BOMBS, *HARMLESS])
def test_no_file_takes_long_or_much_memory(name: str) -> None:
    began = time.monotonic()
    with BoundedDecoder(Task.pixels(SPEC), 3.0) as decoder:
        if name in HARMLESS:
            assert len(decoder.decode(HARMLESS[name])) == 3 * 8 * 8
        else:
            with pytest.raises(DecodeError) as caught:
                decoder.decode(BOMBS[name])
            assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 15


def test_expensive_images_are_decoded_in_processes_and_give_the_same_replies(monkeypatch) -> None:
    contents = [encoded(PHOTO.resize((90 + n, 60)), format) for n in range(3) for format in ("PNG", "JPEG", "TIFF")]
    tasks = [Task.pixels(dataclasses.replace(SPEC, fit="pad")), Task.stats(10**6), Task.measure(10**6)]
    tasks.append(Task.thumbnail(20, 10**6))
    for task in tasks:
        with BoundedDecoder(task, 30.0) as decoder:
            cheap = dict(decoder.map(contents.__getitem__, range(len(contents))))
            assert not any(worker._process for worker in decoder._workers.workers)
            with monkeypatch.context() as patch:
                patch.setattr(bounded, "MAX_CHEAP_WORK", 90 * 60 + 30)
                expensive = dict(decoder.map(contents.__getitem__, range(len(contents))))
            assert any(worker._process for worker in decoder._workers.workers)
        assert expensive == cheap
    assert unpack_measurement(BoundedDecoder(tasks[2], 30.0).decode(contents[0])) == (90, 60, False, 0)


def test_large_images_take_turns() -> None:
    budget, most, lock = MemoryBudget(100), [0], threading.Lock()
    now = 0

    def work(pixels: int) -> None:
        nonlocal now
        with budget.take(pixels):
            with lock:
                now += pixels
                most[0] = max(most[0], now)
            time.sleep(0.01)
            with lock:
                now -= pixels

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (40, 60, 50, 30, 90, 10) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 <= most[0] <= 100
    with MemoryBudget(100).take(1000):  # alone, however large it is
        pass


def test_large_images_ask_for_memory() -> None:
    """More pixels than are free are decoded after the parent has agreed."""
    stream = io.BytesIO()
    Image.new("L", (2500, 2000)).save(stream, "PNG")
    with BoundedDecoder(Task.pixels(SPEC), 30.0) as decoder:
        asked = []
        budget = decoder._workers.workers[0].budget
        take = budget.take
        budget.take = lambda pixels: asked.append(pixels) or take(pixels)  # pyright: ignore[reportAttributeAccessIssue]
        replies = dict(decoder._workers.map(lambda _: stream.getvalue(), [0, 1]))
    assert asked == [5_000_000] * 2
    assert [len(reply) for reply in replies.values() if isinstance(reply, bytes)] == [192, 192]


def test_frames_of_a_tiff_are_counted_without_reading_their_tags() -> None:
    chain = b"".join(
        struct.pack("<H", 1) + tag(256, 3, 1, 4) + struct.pack("<I", 8 + 18 * (n + 1)) for n in range(5000)
    )
    assert image_file.count_tiff_frames(b"II*\0" + struct.pack("<I", 8) + chain + bytes(6)) == image_file.MAX_FRAMES
    loop = b"II*\0" + struct.pack("<IH", 8, 1) + tag(256, 3, 1, 4) + struct.pack("<I", 8)
    assert image_file.count_tiff_frames(loop) == 1
    assert (
        image_file.count_tiff_frames(encoded(PHOTO, "TIFF", big_tiff=True, save_all=True, append_images=[PHOTO])) == 2
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits the memory of a process")
def test_a_process_takes_no_more_memory_than_it_may() -> None:
    content = encoded(Image.new("RGB", (8000, 8000)), "PNG")
    task = dataclasses.replace(Task.pixels(SPEC), max_pixels=-(10**7))  # leaves 50 MB or so, on few cores
    with BoundedDecoder(task, 30.0) as decoder, pytest.raises(DecodeError, match="more memory"):
        decoder.decode(content)
