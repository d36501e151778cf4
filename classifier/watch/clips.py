"""Clips and frames of alerts: the seconds before and after each, saved by a thread, within bounds.

The frames that were answered are kept as JPEGs, in memory as far back as a clip goes. A clip is H.264 in MP4.
"""

import contextlib
import io
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifier.errors import in_short
from classifier.watch.counts import Counts

MAX_SIDE = 640
"""Pixels of the longer side of a clip; the frame beside it has its full size."""
MAX_BYTES = 64 << 20
"""Of the JPEGs before an alert, and of those of a clip."""
_QUALITY, _FRAME_QUALITY = 80, 92
_TOLERANCE = 1e-6
"""In seconds: sums of frame times are rounded."""
_MAX_OPEN = 8
"""Clips that are recorded, and that wait to be saved, at once."""
_CODECS = {"libx264": {"preset": "veryfast", "crf": "23"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
_Shot = tuple[float, bytes]


@dataclass
class _Clip:
    path: Path
    until: float
    shots: list[_Shot] = field(default_factory=list)
    size: int = 0

    def add(self, shot: _Shot) -> None:
        if shot[0] <= self.until + _TOLERANCE and self.size + len(shot[1]) <= MAX_BYTES:
            self.shots.append(shot)
            self.size += len(shot[1])


class Recorder:
    """Saves a clip and a frame of each alert in a folder.

    before, after: seconds of a clip. keep, keep_bytes: of the files, the oldest of which are deleted above either. say:
    called with a sentence if something cannot be saved.
    """

    def __init__(
        self,
        folder: Path,
        counts: Counts,
        say: Callable[[str], None],
        *,
        before: float,
        after: float,
        keep: int,
        keep_bytes: int,
    ) -> None:
        self._folder, self._counts, self._say = folder, counts, say
        self._before, self._after, self._keep, self._keep_bytes = before, after, keep, keep_bytes
        self._recent: deque[_Shot] = deque()
        self._recent_bytes = 0
        self._open: list[_Clip] = []
        self._saved: deque[tuple[list[Path], int]] = deque()
        self._number = 0
        self._work: queue.Queue[Callable[[], list[Path]] | None] = queue.Queue(2 * _MAX_OPEN)
        self._taken = self._done = 0
        """Clips and frames: to be saved, and saved or given up. Each is written by one thread."""
        folder.mkdir(exist_ok=True)
        self._thread = threading.Thread(target=self._save_all, name="clips", daemon=True)
        self._thread.start()

    def add(self, seconds: float, pixels_HWC: np.ndarray, *, is_first: bool = False) -> None:
        """Record a frame that was answered. is_first: after a gap, before which clips do not go."""
        if is_first:
            self._finish([*self._open])
            self._recent.clear()
            self._recent_bytes = 0
        if not self._before and not self._after:
            return
        shot = (seconds, encode_jpeg(pixels_HWC, _QUALITY, MAX_SIDE))
        self._recent.append(shot)
        self._recent_bytes += len(shot[1])
        while self._recent[0][0] < seconds - self._before or self._recent_bytes > MAX_BYTES:
            self._recent_bytes -= len(self._recent.popleft()[1])
        for clip in self._open:
            clip.add(shot)
        self._finish([clip for clip in self._open if seconds >= clip.until])

    def begin(self, seconds: float, pixels_HWC: np.ndarray) -> dict[str, str]:
        """Save a frame, and begin its clip, for an alert; return their files' names, relative to the run folder."""
        self._number += 1
        stem = self._folder / f"{self._number:06d}"
        frame, clip = stem.with_suffix(".jpg"), stem.with_suffix(".mp4")
        names = {}
        if self._put(lambda: _save_frame(frame, pixels_HWC)):
            names["frame_file"] = f"{self._folder.name}/{frame.name}"
        if not self._before and not self._after:
            return names
        if len(self._open) >= _MAX_OPEN:
            self._lose()
            return names
        opened = _Clip(clip, seconds + self._after)
        for shot in self._recent:
            opened.add(shot)
        self._open.append(opened)
        names["clip_file"] = f"{self._folder.name}/{clip.name}"
        if not self._after:
            self._finish([opened])
        return names

    def close(self, seconds: float = 30.0) -> None:
        """End the clips that are being recorded and save them, for at most so many seconds."""
        self._finish([*self._open])
        with contextlib.suppress(queue.Full):
            self._work.put(None, timeout=seconds)
            self._thread.join(seconds)
        if left := self._taken - self._done:
            self._counts.add("unsaved", left)
            self._say(f"{left} of the last clips and frames were not saved in time")

    def _finish(self, clips: Sequence[_Clip]) -> None:
        for clip in clips:
            self._open.remove(clip)
            if clip.shots:
                self._put(lambda clip=clip: self._save_clip(clip))

    def _put(self, work: Callable[[], list[Path]]) -> bool:
        try:
            self._work.put_nowait(work)
        except queue.Full:
            self._lose()
            return False
        self._taken += 1
        return True

    def _lose(self) -> None:
        self._counts.add("unsaved")
        self._say("a clip or frame was not saved: alerts begin faster than they can be saved")

    def _save_clip(self, clip: _Clip) -> list[Path]:
        save_clip(clip.path, clip.shots)
        self._counts.clips += 1
        return [clip.path]

    def _save_all(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                paths = work()
                self._saved.append((paths, sum(path.stat().st_size for path in paths)))
                self._delete_oldest()
            except Exception as error:  # a full disk, or a codec: watching goes on
                self._counts.add("unsaved")
                self._say(f"a clip or frame could not be saved in {self._folder} ({in_short(error)})")
            self._done += 1

    def _delete_oldest(self) -> None:
        while len(self._saved) > self._keep or sum(size for _, size in self._saved) > self._keep_bytes:
            for path in self._saved.popleft()[0]:
                path.unlink(missing_ok=True)


def encode_jpeg(pixels_HWC: np.ndarray, quality: int = _QUALITY, max_side: int | None = None) -> bytes:
    """Return an image, uint8, as a JPEG, shrunk until no side is longer than max_side."""
    image = Image.fromarray(pixels_HWC)
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _save_frame(path: Path, pixels_HWC: np.ndarray) -> list[Path]:
    with _replace(path) as part:
        part.write_bytes(encode_jpeg(pixels_HWC, _FRAME_QUALITY))
    return [path]


def save_clip(path: Path, shots: Sequence[_Shot]) -> None:
    """Save JPEGs, each with its seconds, as a film. Whatever FFmpeg and the file system raise."""
    import av

    codec = next(name for name in _CODECS if name in av.codecs_available)
    began, options = shots[0][0], {"movflags": "faststart"}
    with _replace(path) as part, av.open(str(part), "w", format="mp4", options=options) as container:
        stream: Any = container.add_stream(codec, rate=30, options=_CODECS[codec])
        width, height = Image.open(io.BytesIO(shots[0][1])).size
        stream.width, stream.height, stream.pix_fmt = max(2, width // 2 * 2), max(2, height // 2 * 2), "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 1  # the model needs the others
        latest = -1
        for seconds, jpeg in shots:
            frame = av.VideoFrame.from_image(Image.open(io.BytesIO(jpeg)))
            frame = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
            latest = frame.pts = max(latest + 1, round((seconds - began) * 1000))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@contextlib.contextmanager
def _replace(path: Path) -> Iterator[Path]:
    """Give a file to write, which then takes the place of another; without it if that fails."""
    part = path.with_suffix(".part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
