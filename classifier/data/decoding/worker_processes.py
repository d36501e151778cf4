"""Worker processes that decode images: if a decoder hangs or crashes, only that image fails.

A process reads frames from its stdin (the number of images, then each one's length and bytes) and replies to each image
on its stdout: its pixels, for example, or that they are in their row, or why it cannot be used. It imports Pillow and
numpy alone, so that it starts in a moment.
"""

import contextlib
import math
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.data.decoding import decode
from classifier.data.decoding.decode import DecodeFailure
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.image_stats import ImageStats, compute_image_stats
from classifier.data.images.jpeg_segment import open_writer

# A frame holds at most this many images and bytes; a reply waits at most LINGER seconds for others to go with it.
FRAME_IMAGES, FRAME_BYTES, LINGER = 32, 4 << 20, 0.05
START_SECONDS = 120.0
POLL_SECONDS = 0.1
"""Time between two looks at a process that may be late."""
_LENGTH = struct.Struct("<I")
_ROOT = str(Path(__file__).resolve().parents[3])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from classifier.data.decoding.worker_processes import serve; serve(sys.argv[2:])"
)


@dataclass(frozen=True)
class Task:
    """What processes do with an image's bytes: a name of TASKS and its arguments. reply_bytes: the size of a reply."""

    words: tuple[str, ...]
    reply_bytes: int

    @classmethod
    def pixels(cls, spec: ImageSpec) -> "Task":
        """Reply with the pixels, uint8 channels x size x size."""
        channels, height, width = spec.shape
        return cls(("pixels", *spec.to_words()), channels * height * width)

    @classmethod
    def rows(cls, spec: ImageSpec, writer: Sequence[str]) -> "Task":
        """Write the pixels into a segment, given as its `to_words`, and reply with nothing. See `address`."""
        return cls(("rows", *spec.to_words(), *writer), 0)

    @classmethod
    def stats(cls, max_pixels: int) -> "Task":
        """Reply with packed ImageStats."""
        return cls(("stats", str(max_pixels)), ImageStats.LENGTH)


class DecodeWorker:
    """One process, which starts when it gets its first image. Not for several threads at once."""

    def __init__(self, task: Task, seconds: float) -> None:
        """seconds: the time that one image may take."""
        self.task, self.seconds = task, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: _Watchdog | None = None
        self._failure = DecodeFailure("")

    def decode(self, contents: Sequence[bytes]) -> Iterator[bytes | DecodeFailure]:
        """Yield the reply to each image, in order. OSError if a row cannot be written: the disk is full."""
        done = 0
        for reply in self._replies(contents):
            done += 1
            yield reply
        for content in contents[done:]:  # one of them crashed the process, or did not end: find out which
            replies = [*self._replies([content])]
            yield replies[0] if replies else self._failure

    def close(self) -> None:
        """End the process."""
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = self._watchdog = None

    def _replies(self, contents: Sequence[bytes]) -> Iterator[bytes | DecodeFailure]:
        """Yield those that come in time, before the process ends."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        self._failure = DecodeFailure("it crashes its decoder")
        try:
            frame = [_LENGTH.pack(len(contents))]
            for content in contents:
                frame += [_LENGTH.pack(len(content)), content]
            process.stdin.write(b"".join(frame))
            process.stdin.flush()
            for _ in contents:
                status = self._read(process.stdout, 1)
                if status == b"+":
                    yield self._read(process.stdout, self.task.reply_bytes)
                    continue
                text = self._read(process.stdout, *_LENGTH.unpack(self._read(process.stdout, 4))).decode()
                if status == b"!":
                    raise OSError(text)
                yield DecodeFailure(text)
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._failure = DecodeFailure(decode.timeout_reason(self.seconds))
            self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _MAIN, _ROOT, *self.task.words]
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._watchdog = _Watchdog(process)
        try:
            self._read(process.stdout, 1, START_SECONDS)
        except (EOFError, TimeoutError):
            self.close()
            raise RuntimeError(f"a decoding process did not start: {' '.join(command[:3])}") from None
        return process

    def _read(self, stream: Any, count: int, seconds: float | None = None) -> bytes:
        """Read `count` bytes. EOFError if the stream ends first, TimeoutError if nothing comes for `seconds`, which are
        those that one image may take if not given."""
        assert self._watchdog is not None
        parts = []
        while count:
            with self._watchdog.limit(seconds or self.seconds + 2 * LINGER):
                part = os.read(stream.fileno(), min(count, 1 << 20))
                if not part:
                    raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class _Watchdog:
    """Kills a process that is late, so that its output ends: Windows has no other time limit on reading a pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.deadline, self.is_late, self._stopped = process, math.inf, False, threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Read here for at most `seconds`. TimeoutError instead of EOFError if that was too long."""
        self.deadline = time.monotonic() + seconds
        try:
            yield
        except EOFError:
            raise TimeoutError if self.is_late else EOFError from None
        finally:
            self.deadline = math.inf

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            if time.monotonic() > self.deadline:
                self.is_late = True
                self.process.kill()
                return


@dataclass(frozen=True)
class DecodeWorkers:
    """A pool of such processes. seconds: the time that one image may take."""

    task: Task
    seconds: float
    processes: int

    def map(
        self, read: Callable[[int], bytes | DecodeFailure | None], indices: Sequence[int]
    ) -> Iterator[tuple[int, bytes | DecodeFailure]]:
        """Yield the reply to each of these images, in any order.

        read: called in threads; returns an image's bytes, or why it has none, or None if nothing is to be done for it.
        OSError as DecodeWorker.decode, and whatever `read` raises.
        """
        workers = [DecodeWorker(self.task, self.seconds) for _ in range(self.processes)]
        idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
        for worker in workers:
            idle.put(worker)

        def run(chunk: Sequence[int]) -> list[tuple[int, bytes | DecodeFailure]]:
            worker = idle.get()
            try:
                return [*_decode_chunk(worker, read, chunk)]
            finally:
                idle.put(worker)

        pending: set[Future[list[tuple[int, bytes | DecodeFailure]]]] = set()
        pool = ThreadPoolExecutor(self.processes)
        try:
            for start in range(0, len(indices), FRAME_IMAGES):
                pending.add(pool.submit(run, indices[start : start + FRAME_IMAGES]))
                if len(pending) >= 2 * self.processes:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:  # also after Ctrl-C, or an error in one thread: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
            for worker in workers:
                worker.close()


def _decode_chunk(
    worker: DecodeWorker, read: Callable[[int], bytes | DecodeFailure | None], chunk: Sequence[int]
) -> Iterator[tuple[int, bytes | DecodeFailure]]:
    frame: dict[int, bytes] = {}
    for index in chunk:
        content = read(index)
        if isinstance(content, DecodeFailure):
            yield index, content
        elif content is not None:
            frame[index] = content
        if sum(map(len, frame.values())) >= FRAME_BYTES:
            yield from zip(frame, worker.decode([*frame.values()]), strict=True)
            frame = {}
    if frame:
        yield from zip(frame, worker.decode([*frame.values()]), strict=True)


def address(row: int, content: bytes) -> bytes:
    """Return what the task `rows` takes: an image's bytes, and the row that they go to."""
    return _LENGTH.pack(row) + content


def _pixels(*spec: str) -> Callable[[bytes], bytes]:
    image_spec = ImageSpec.from_words(spec)
    return lambda content: decode.decode_general(content, image_spec).tobytes()


def _rows(size: str, channels: str, fit: str, max_pixels: str, *writer: str) -> Callable[[bytes], bytes]:
    spec, segment = ImageSpec.from_words((size, channels, fit, max_pixels)), open_writer(writer)

    def write(content: bytes) -> bytes:
        (row,) = _LENGTH.unpack_from(content)
        segment.write(row, decode.decode_general(content[_LENGTH.size :], spec))
        return b""

    return write


def _stats(max_pixels: str) -> Callable[[bytes], bytes]:
    return lambda content: compute_image_stats(content, max_pixels=int(max_pixels)).pack()


# Name -> what makes, from a task's arguments, the function from an image's bytes to a reply.
TASKS: dict[str, Callable[..., Callable[[bytes], bytes]]] = {"pixels": _pixels, "rows": _rows, "stats": _stats}


def serve(words: Sequence[str]) -> None:
    """Reply to frames until stdin ends: what the process runs. words: a Task's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    reply_to = TASKS[words[0]](*words[1:])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b".")  # what comes next is not slowed by the start
    sink.flush()
    with decode.pillow_limits_off():
        while head := source.read(4):
            contents = [source.read(*_LENGTH.unpack(source.read(4))) for _ in range(*_LENGTH.unpack(head))]
            flushed = time.monotonic()
            for content in contents:
                try:
                    sink.write(b"+" + reply_to(content))
                except (decode.DecodeError, OSError) as error:
                    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
                    status = b"!" if isinstance(error, OSError) else b"-"
                    sink.write(status + _LENGTH.pack(len(text.encode())) + text.encode())
                if time.monotonic() - flushed > LINGER:
                    sink.flush()
                    flushed = time.monotonic()
            sink.flush()
