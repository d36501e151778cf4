"""A thread that reads frames ahead. Of a live source the newest frame wins; of a film none is left out."""

import dataclasses
import threading
from collections import deque
from collections.abc import Generator, Iterator

from classifier.watch.counts import Counts
from classifier.watch.sources.frame import Frame

_AHEAD = 2
"""Frames of a film that wait at most."""
_TOLERANCE = 1e-3
"""In seconds, of a frame that comes a little before its time: time stamps are rounded."""


class FrameReader:
    """Takes as many frames a second as are asked for from an iterator, which its thread runs. A context manager.

    stop: the iterator is to end once it is set.
    """

    def __init__(
        self, frames: Iterator[Frame], stop: threading.Event, counts: Counts, *, fps: float, keeps_all: bool
    ) -> None:
        self._frames, self._stop, self._counts = frames, stop, counts
        self._period, self._keeps_all = 1 / fps, keeps_all
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)

    def __enter__(self) -> "FrameReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(2)  # a read that never returns ends with the process

    def take(self, seconds: float) -> Frame | None:
        """Return the next frame, or None if none comes in time. EOFError after the last; the error that ended them."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._has_ended, seconds)
            if self._waiting:
                frame = self._waiting.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            if self._has_ended:
                raise EOFError
            return None

    def _run(self) -> None:
        try:
            due = 0.0
            for frame in self._frames:
                if self._stop.is_set():
                    break
                self._counts.frames += 1
                is_due = frame.is_first or frame.seconds >= due - _TOLERANCE
                if frame.is_first:
                    due = frame.seconds + self._period
                elif is_due:
                    due = max(due + self._period, frame.seconds + self._period / 2)
                self._put(frame, is_due)
        except Exception as error:
            self._error = error
        finally:
            if isinstance(self._frames, Generator):
                self._frames.close()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame, is_due: bool) -> None:
        with self._changed:
            if self._keeps_all:
                if is_due:
                    self._changed.wait_for(lambda: len(self._waiting) < _AHEAD or self._stop.is_set())
                    self._waiting.append(frame)
            elif self._waiting:  # one that is due has not been taken yet: this one is newer
                older = self._waiting.pop()
                self._counts.dropped += is_due
                self._waiting.append(dataclasses.replace(frame, is_first=frame.is_first or older.is_first))
            elif is_due:
                self._waiting.append(frame)
            self._changed.notify_all()
