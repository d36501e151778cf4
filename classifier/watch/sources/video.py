"""Films, streams and cameras, decoded by FFmpeg (PyAV), within limits."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import DataError
from classifier.runtime.cpu import available_cores
from classifier.watch.counts import Counts
from classifier.watch.sources.address import Address
from classifier.watch.sources.pace import Pace

if TYPE_CHECKING:
    import av

SILENT_SECONDS = 10.0
"""After which a stream that sends nothing is taken for dead."""
_LIVE_OPTIONS = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "1000000",
}
_PATIENCE = 3
"""Times as long a stream may be silent between segments (HLS), or send no frame that can be decoded."""


@dataclass(frozen=True, eq=False)
class FilmContent:
    """A film that is no file of this machine: its bytes, and how FFmpeg is to read them."""

    file: Any
    """With the methods read, seek and tell."""
    options: Mapping[str, str]
    format: str | None = None
    """None: found by its first bytes."""
    threads: int = 1
    """That decode."""


class Video:
    """An open film, stream or camera. DataError, without its credentials, if it cannot be opened.

    max_pixels: of a frame. counts: where damaged frames are counted. content: of a film, instead of its file.
    """

    def __init__(
        self,
        address: Address,
        max_pixels: int,
        silent_seconds: float = SILENT_SECONDS,
        *,
        counts: Counts | None = None,
        content: FilmContent | None = None,
    ) -> None:
        self.address, self.max_pixels, self._counts = address, max_pixels, counts or Counts()
        self._content = content
        self._silent_seconds, self._file = silent_seconds, None
        if address.kind == "device" and sys.platform != "linux":
            raise DataError(f"{address.name} is a device, which is read on Linux only: give the URL of a stream")
        from av.error import FFmpegError

        self._errors = FFmpegError
        try:
            self._container: Any = self._open(is_live=address.kind != "film")
            is_stored = address.kind == "stream" and self._container.duration is not None
            is_segmented = self._container.format.name == "hls"
            self._silent_seconds *= _PATIENCE if is_segmented else 1
            if is_stored or is_segmented:  # a live source has lost the frames by which its format was found
                self._container.close()
                self._container = self._open(is_live=not is_stored)
            self.is_live = address.kind != "film" and not is_stored
            """Whether it goes on while it is not read. A stream of known length is a film that lies elsewhere."""
            streams = self._container.streams.video
            if not streams:
                raise DataError(f"{address.name} has no video: give another source")
            self._prepare(streams[0])
        except BaseException as error:
            self.close()
            if isinstance(error, FFmpegError | OSError):
                raise self._explain(error) from None
            raise

    def _open(self, *, is_live: bool) -> Any:
        import av

        address = self.address
        options = {"protocol_whitelist": address.protocols}
        if content := self._content:
            options |= content.options
            return av.open(content.file, format=content.format, options=options, metadata_errors="replace")
        if address.kind == "film":  # opened here, so that FFmpeg needs no protocol, nor has one for what it refers to
            self._file = Path(address.location).open("rb")  # noqa: SIM115 - closed by close
            return av.open(self._file, options=options, metadata_errors="replace")
        if address.kind == "device":
            return av.open(address.location, format="v4l2", options=_LIVE_OPTIONS, metadata_errors="replace")
        seconds = self._silent_seconds
        options |= {"rtsp_transport": "tcp"} | (_LIVE_OPTIONS if is_live else {})
        return av.open(address.location, options=options, timeout=(seconds, seconds), metadata_errors="replace")

    def _prepare(self, stream: Any) -> None:
        self._stream, codec = stream, stream.codec_context
        self.average_rate = float(stream.average_rate) if stream.average_rate else None
        """Frames a second, if that is known."""
        self.period = 1 / (self.average_rate or 25)
        """Seconds of a frame."""
        if codec is None:
            raise DataError(f"{self.address.name} has a codec that is unknown here: convert it, to H.264")
        self._check_size(codec.width, codec.height)
        codec.options = {"max_pixels": str(self.max_pixels)}
        codec.thread_count = self._content.threads if self._content else available_cores()
        # Threads that each decode a frame would hold back as many frames.
        codec.thread_type = "SLICE" if self.is_live else "AUTO"

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> str:
        """Return its size, rate and codec in a few words."""
        codec, rate = self._stream.codec_context, self.average_rate
        words = [f"{codec.width} x {codec.height} pixels", f"{rate:.4g} frames/s" if rate else "", codec.name]
        return ", ".join(filter(None, words))

    def frames(self) -> "Iterator[av.VideoFrame]":
        """Yield the frames that can be decoded. DataError if the connection is lost, or if there is none at all."""
        found, latest = False, time.monotonic()
        try:
            for packet in self._packets():
                for frame in self._decode(packet):
                    self._check_size(frame.width, frame.height)
                    found = True
                    yield frame
                    latest = time.monotonic()
                silent = time.monotonic() - latest
                if self.is_live and silent > _PATIENCE * self._silent_seconds:
                    raise DataError(f"{self.address.name} was lost (no frame could be decoded for {silent:.0f} s)")
        except (self._errors, OSError) as error:
            if self.address.kind != "film" or not found:
                raise self._explain(error, is_open=True) from None
            self._counts.damaged += 1  # the end of a file that was cut off
        if not found:
            raise DataError(f"{self.address.name} has no frame that can be decoded: give another source")

    def _decode(self, packet: Any) -> "list[av.VideoFrame]":
        """Return the whole frames that a packet completes; none if it is of sound."""
        if packet.stream_index != self._stream.index:
            return []
        try:
            decoded = packet.decode()
        except self._errors:  # a part that is damaged, or a frame of too many pixels
            self._counts.damaged += 1
            return []
        whole = [frame for frame in decoded if not frame.is_corrupt]
        self._counts.damaged += len(decoded) - len(whole)
        return whole

    def _packets(self) -> Iterator[Any]:
        """Yield packets; of a live source those of sound, too, which may go on when its video does not.

        Frames between keyframes are skipped while they come faster than they are decoded.
        """
        packets = self._container.demux(*([] if self.is_live else [self._stream]))
        codec, waited, pace = self._stream.codec_context, 0.0, Pace(self.period, time.monotonic())
        while True:
            began = time.monotonic()
            packet = next(packets, None)
            if packet is None:
                return
            now = time.monotonic()
            waited += now - began
            if self.is_live and packet.stream_index == self._stream.index:
                stamp = None if packet.dts is None else float(packet.dts * packet.time_base)
                codec.skip_frame = "NONKEY" if pace.is_behind(waited, stamp, now) else "DEFAULT"
                waited = 0.0
            yield packet

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise DataError(
                f"{self.address.name} has frames of {width} x {height} pixels, more than data.max_pixels "
                f"{self.max_pixels:,}: raise it, or give a smaller video"
            )

    def _explain(self, error: BaseException, *, is_open: bool = False) -> DataError:
        """Return what went wrong, in a sentence. The error's own text has the URL, with its credentials."""
        from av.error import ExitError

        reason = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, ExitError):
            reason = f"it sent nothing for {self._silent_seconds:g} s"
        name = self.address.name
        if self.address.kind == "film":
            return DataError(f"{name} cannot be read as a video ({reason}): give another file, or convert it")
        if is_open:
            return DataError(f"{name} was lost ({reason})")
        return DataError(f"{name} cannot be opened ({reason}): check the address, and that it can be reached")

    def close(self) -> None:
        container, self._container = getattr(self, "_container", None), None
        if container is not None:
            container.close()
        if self._file is not None:
            self._file.close()


def to_pixels(frame: "av.VideoFrame") -> np.ndarray:
    """Return a decoded frame as uint8, H x W x 3, upright."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
