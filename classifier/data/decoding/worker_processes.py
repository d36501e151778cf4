"""Processes that decode pictures: one that hangs or crashes in a decoder costs that picture, which is told as a flaw.

A process reads frames from its stdin (how many pictures, then each one's length and bytes) and answers each picture on
its stdout: its pixels, say, or that they lie in their row, or why it cannot be used. It knows Pillow and numpy alone,
so that it starts in a moment.
"""

import functools
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from classifier.data.decoding import decode
from classifier.data.decoding.image_stats import compute_image_stats
from classifier.data.images.jpeg_segment import reopened

# A frame holds so many pictures or bytes at most; an answer waits so many seconds at most for others to go with it.
FRAME_PICTURES, FRAME_BYTES, LINGER = 32, 4 << 20, 0.05
START_SECONDS = 120.0
_LENGTH = struct.Struct("<I")
_ROOT = str(Path(__file__).resolve().parents[3])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from classifier.data.decoding.worker_processes import serve; serve(sys.argv[2:])"
)


class Decoder:
    """One process, and what it makes of a picture. Not for several threads at once."""

    def __init__(self, *words: object, length: int, seconds: float) -> None:
        """words: a task of TASKS and its settings. length: bytes of an answer. seconds: that one picture may take."""
        self.words, self.length, self.seconds = [str(word) for word in words], length, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._why = ""

    def __call__(self, contents: Sequence[bytes]) -> Iterator[bytes | str]:
        """Each picture's answer, or its flaw, in order. OSError if an answer cannot be written: the disk is full."""
        done = 0
        for answer in self._answers(contents):
            done += 1
            yield answer
        for content in contents[done:]:  # one of them ended the process, or did not end: which one?
            answers = [*self._answers([content])]
            yield answers[0] if answers else self._why

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _answers(self, contents: Sequence[bytes]) -> Iterator[bytes | str]:
        """Those that come in time, before the process ends."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        self._why = "it ends its decoder"
        try:
            frame = [_LENGTH.pack(len(contents))]
            for content in contents:
                frame += [_LENGTH.pack(len(content)), content]
            process.stdin.write(b"".join(frame))
            process.stdin.flush()
            for _ in contents:
                status = self._read(process.stdout, 1)
                if status == b"+":
                    yield self._read(process.stdout, self.length)
                    continue
                text = self._read(process.stdout, *_LENGTH.unpack(self._read(process.stdout, 4))).decode()
                if status == b"!":
                    raise OSError(text)
                yield text
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._why = too_slow(self.seconds)
            self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", _MAIN, _ROOT, *self.words]
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        try:
            self._read(process.stdout, 1, START_SECONDS)
        except (EOFError, TimeoutError):
            self.close()
            raise RuntimeError(f"a process that decodes pictures did not start: {' '.join(words[:3])}") from None
        return process

    def _read(self, stream: Any, count: int, seconds: float | None = None) -> bytes:
        """EOFError if it ends before, TimeoutError if nothing comes for so long; not set: that one picture may take."""
        parts = []
        while count:
            if not select.select([stream], [], [], seconds or self.seconds + 2 * LINGER)[0]:
                raise TimeoutError
            part = os.read(stream.fileno(), min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def too_slow(seconds: float) -> str:
    """The flaw of a picture that takes longer than it may."""
    return f"it takes longer than {seconds:g} s to decode"


def decoded(
    make: Callable[[], Decoder],
    contents: Callable[[int], "bytes | str | None"],
    indices: Sequence[int],
    take: Callable[[int, bytes | str], None],
    processes: int,
) -> None:
    """Decode the pictures of these indices in several processes.

    contents: a picture's bytes, a flaw, or None where it need not be decoded. take: gets its answer or its flaw. Both
    are called in threads.
    """
    places, lock, over = iter(range(0, len(indices), FRAME_PICTURES)), threading.Lock(), threading.Event()

    def work() -> None:
        decoder = make()
        try:
            while not over.is_set():
                with lock:
                    start = next(places, None)
                if start is None:
                    return
                for frame in _frames(indices[start : start + FRAME_PICTURES], contents, take):
                    for index, answer in zip(frame, decoder([*frame.values()]), strict=True):
                        take(index, answer)
        finally:
            decoder.close()

    with ThreadPoolExecutor(processes) as pool:
        try:
            for done in [pool.submit(work) for _ in range(processes)]:
                done.result()
        except BaseException:  # Ctrl-C, or an error in one thread: the others need not finish
            over.set()
            raise


def _frames(
    indices: Sequence[int],
    contents: Callable[[int], "bytes | str | None"],
    take: Callable[[int, bytes | str], None],
) -> Iterator[dict[int, bytes]]:
    frame: dict[int, bytes] = {}
    total = 0
    for index in indices:
        content = contents(index)
        if isinstance(content, str):
            take(index, content)
        elif content is not None:
            frame[index] = content
            total += len(content)
        if total >= FRAME_BYTES:
            yield frame
            frame, total = {}, 0
    if frame:
        yield frame


def _pixels(content: bytes, size: str, channels: str, fit: str, max_pixels: str) -> bytes:
    settings: dict[str, Any] = {"size": int(size), "channels": int(channels), "fit": fit}
    return decode.thorough(content, **settings, max_pixels=int(max_pixels)).tobytes()


def _rows(content: bytes, size: str, channels: str, fit: str, max_pixels: str, *draft: str) -> bytes:
    """Into its row of the draft, where a reader will find it: nothing has to come back."""
    (row,) = _LENGTH.unpack_from(content)
    settings: dict[str, Any] = {"size": int(size), "channels": int(channels), "fit": fit}
    _draft(draft).put(row, decode.thorough(content[_LENGTH.size :], **settings, max_pixels=int(max_pixels)))
    return b""


def for_row(row: int, content: bytes) -> bytes:
    """What the task `rows` takes: a picture's bytes, and where it goes."""
    return _LENGTH.pack(row) + content


_draft = functools.cache(reopened)


def _glance(content: bytes, max_pixels: str) -> bytes:
    return compute_image_stats(content, max_pixels=int(max_pixels)).pack()


# Name -> what makes a picture's bytes and the settings an answer.
TASKS: dict[str, Callable[..., bytes]] = {"pixels": _pixels, "rows": _rows, "glance": _glance}


def serve(words: Sequence[str]) -> None:
    """The process: answers frames until its stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    task, settings = TASKS[words[0]], words[1:]
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b".")  # what comes next is not slowed by the start
    sink.flush()
    with decode.quiet():
        while head := source.read(4):
            contents = [source.read(*_LENGTH.unpack(source.read(4))) for _ in range(*_LENGTH.unpack(head))]
            flushed = time.monotonic()
            for content in contents:
                try:
                    sink.write(b"+" + task(content, *settings))
                except (decode.DecodeError, OSError) as error:
                    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
                    status = b"!" if isinstance(error, OSError) else b"-"
                    sink.write(status + _LENGTH.pack(len(text.encode())) + text.encode())
                if time.monotonic() - flushed > LINGER:
                    sink.flush()
                    flushed = time.monotonic()
            sink.flush()
