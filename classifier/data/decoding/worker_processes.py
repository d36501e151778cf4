"""Worker processes that decode images: if a decoder hangs or crashes, only that image fails.

A process reads frames from its stdin (the number of images, then each one's length and bytes) and replies to each image
on its stdout: its pixels, for example, or that they are in their row, or why it cannot be used. Before it decodes a
large image, it asks for the memory and waits for the answer. It imports Pillow and numpy alone, so that it starts in a
moment.
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
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from classifier.data.decoding.decode import DecodeFailure, timeout_reason
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.memory import MemoryBudget, limit_own_memory
from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.data.decoding.tasks import Task

# A frame holds at most this many images and bytes; a reply waits at most LINGER seconds for others to go with it.
FRAME_IMAGES, FRAME_BYTES, LINGER = 32, 4 << 20, 0.05
START_SECONDS = 120.0
POLL_SECONDS = 0.1
"""Time between two looks at a process that may be late."""
FREE_WORK = 1 << 22
"""Images of up to this many pixels times passes are decoded without asking for the memory."""
_LENGTH, _WORK = struct.Struct("<I"), struct.Struct("<Q")
_ROOT = str(Path(__file__).resolve().parents[3])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from classifier.data.decoding.worker_processes import serve; serve(sys.argv[2:])"
)


class DecodeWorker:
    """One process, which starts when it gets its first image. Not for several threads at once."""

    def __init__(self, task: Task, seconds: float, budget: MemoryBudget | None = None) -> None:
        """seconds: the time that one image may take. budget: of memory, shared with other workers."""
        self.task, self.seconds, self.budget = task, seconds, budget or MemoryBudget()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: _Watchdog | None = None
        self._failure = DecodeFailure("")

    def decode(self, contents: Sequence[bytes]) -> Iterator[bytes | DecodeFailure]:
        """Yield the reply to each image, in order. OSError if a row cannot be written: the disk is full."""
        done = 0
        for reply in self._replies(contents):
            done += 1
            yield reply
        if len(contents) == 1 and not done:
            yield self._failure
            return
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
                yield self._read_reply(process)
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._failure = DecodeFailure(timeout_reason(self.seconds))
            self.close()

    def _read_reply(self, process: subprocess.Popen[bytes]) -> bytes | DecodeFailure:
        """Read the next reply, after the memory for it is there. OSError if that is what it says."""
        assert process.stdin is not None
        status = self._read(process.stdout, 1)
        if status == b"?":
            with self.budget.take(*_WORK.unpack(self._read(process.stdout, _WORK.size))):
                process.stdin.write(b".")
                process.stdin.flush()
                return self._read_reply(process)
        reply = self._read(process.stdout, *_LENGTH.unpack(self._read(process.stdout, _LENGTH.size)))
        if status == b"!":
            raise OSError(reply.decode())
        return reply if status == b"+" else DecodeFailure(reply.decode())

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: nothing is imported from the working directory, which may be that of the images.
        command = [sys.executable, "-P", "-c", _MAIN, _ROOT, str(self.task.max_pixels), *self.task.words]
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


class DecodeWorkers:
    """A pool of such processes, which live until `close`, or as long as it does."""

    def __init__(self, task: Task, seconds: float, processes: int) -> None:
        """seconds: the time that one image may take."""
        budget = MemoryBudget()
        self.workers = [DecodeWorker(task, seconds, budget) for _ in range(processes)]
        self._idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
        for worker in self.workers:
            self._idle.put(worker)
        self._finalizer = weakref.finalize(self, _close_all, self.workers)

    def __enter__(self) -> "DecodeWorkers":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the pool can be used again."""
        _close_all(self.workers)

    def map(
        self, read: Callable[[int], bytes | DecodeFailure | None], indices: Sequence[int]
    ) -> Iterator[tuple[int, bytes | DecodeFailure]]:
        """Yield the reply to each of these images, in any order.

        read: called in threads; returns an image's bytes, or why it has none, or None if nothing is to be done for it.
        OSError as DecodeWorker.decode, and whatever `read` raises.
        """
        if not len(indices):
            return

        def run(chunk: Sequence[int]) -> list[tuple[int, bytes | DecodeFailure]]:
            worker = self._idle.get()
            try:
                return [*_decode_chunk(worker, read, chunk)]
            finally:
                self._idle.put(worker)

        pending: set[Future[list[tuple[int, bytes | DecodeFailure]]]] = set()
        pool = ThreadPoolExecutor(len(self.workers))
        try:
            frame_images = max(1, min(FRAME_IMAGES, -(-len(indices) // len(self.workers))))
            for start in range(0, len(indices), frame_images):
                pending.add(pool.submit(run, indices[start : start + frame_images]))
                if len(pending) >= 2 * len(self.workers):
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:  # also after Ctrl-C, or an error in one thread: what has not begun is not begun
            pool.shutdown(cancel_futures=True)


def _close_all(workers: Sequence[DecodeWorker]) -> None:
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


def serve(words: Sequence[str]) -> None:
    """Reply to frames until stdin ends: what the process runs. words: a task's max_pixels and its words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    source, sink = sys.stdin.buffer, sys.stdout.buffer

    def ask(work: int) -> None:
        if work > FREE_WORK:
            sink.write(b"?" + _WORK.pack(work))
            sink.flush()
            source.read(1)

    task = Task(tuple(words[1:]), int(words[0]))
    reply_to = task.open(ask)
    limit_own_memory(task.max_pixels)
    sink.write(b".")  # what comes next is not slowed by the start
    sink.flush()
    with pillow_limits_off():
        while head := source.read(_LENGTH.size):
            contents = [source.read(*_LENGTH.unpack(source.read(4))) for _ in range(*_LENGTH.unpack(head))]
            flushed = time.monotonic()
            for content in contents:
                try:
                    status, reply = b"+", reply_to(content)
                except (DecodeError, OSError) as error:
                    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
                    status, reply = (b"!" if isinstance(error, OSError) else b"-"), text.encode()
                sink.write(status + _LENGTH.pack(len(reply)) + reply)
                if time.monotonic() - flushed > LINGER:
                    sink.flush()
                    flushed = time.monotonic()
            sink.flush()
