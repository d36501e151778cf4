"""Films, streams and cameras, decoded by FFmpeg (PyAV), within limits."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import DataError
from classifier.runtime.cpu import available_cores
from classifier.watch.sources.address import Address

if TYPE_CHECKING:
    import av

SILENT_SECONDS = 10.0
"""After which a stream that sends nothing is taken for dead."""
_LIVE_OPTIONS = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "1000000",
    "rtsp_transport": "tcp",
}
_WAIT_SECONDS = 1e-3
"""Whoever waits as long for a packet has read all that came before."""
_BEHIND_SECONDS = 1.0
"""Of reading without a wait, after which only keyframes are decoded until all is read."""


class Video:
    """An open film, stream or camera. DataError, without its credentials, if it cannot be opened.

    max_pixels: of a frame.
    """

    def __init__(self, address: Address, max_pixels: int, silent_seconds: float = SILENT_SECONDS) -> None:
        self.address, self.max_pixels, self.damaged = address, max_pixels, 0
        self._silent_seconds, self._file = silent_seconds, None
        if address.kind == "device" and sys.platform != "linux":
            raise DataError(f"{address.name} is a device, which is read on Linux only: give the URL of a stream")
        from av.error import FFmpegError

        self._errors = FFmpegError
        try:
            self._container: Any = self._open(is_live=address.kind != "film")
            is_stored = address.kind == "stream" and self._container.duration is not None
            if is_stored:  # a live source has lost the frames by which its format was found
                self._container.close()
                self._container = self._open(is_live=False)
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
        if address.kind == "film":  # opened here, so that FFmpeg needs no protocol, nor has one for what it refers to
            self._file = Path(address.location).open("rb")  # noqa: SIM115 - closed by close
            return av.open(self._file, options=options)
        if address.kind == "device":
            return av.open(address.location, format="v4l2", options=_LIVE_OPTIONS)
        seconds = self._silent_seconds
        options |= _LIVE_OPTIONS if is_live else {}
        return av.open(address.location, options=options, timeout=(seconds, seconds))

    def _prepare(self, stream: Any) -> None:
        self._stream, codec = stream, stream.codec_context
        self.average_rate = float(stream.average_rate) if stream.average_rate else None
        """Frames a second, if that is known."""
        if codec is None:
            raise DataError(f"{self.address.name} has a codec that is unknown here: convert it, to H.264")
        self._check_size(codec.width, codec.height)
        codec.options = {"max_pixels": str(self.max_pixels)}
        codec.thread_count = available_cores()
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
        found = False
        try:
            for packet in self._packets():
                try:
                    decoded = packet.decode()
                except self._errors:  # a part that is damaged, or a frame of too many pixels
                    self.damaged += 1
                    continue
                for frame in decoded:
                    if frame.is_corrupt:
                        self.damaged += 1
                        continue
                    self._check_size(frame.width, frame.height)
                    found = True
                    yield frame
        except (self._errors, OSError) as error:
            if self.address.kind != "film" or not found:
                raise self._explain(error, is_open=True) from None
            self.damaged += 1  # the end of a file that was cut off
        if not found:
            raise DataError(f"{self.address.name} has no frame that can be decoded: give another source")

    def _packets(self) -> Iterator[Any]:
        """Yield packets; skip frames between keyframes while frames come faster than they are decoded."""
        packets, caught_up = self._container.demux(self._stream), time.monotonic()
        codec = self._stream.codec_context
        while True:
            began = time.monotonic()
            packet = next(packets, None)
            if packet is None:
                return
            now = time.monotonic()
            if now - began > _WAIT_SECONDS:
                caught_up = now
            if self.is_live:
                codec.skip_frame = "NONKEY" if now - caught_up > _BEHIND_SECONDS else "DEFAULT"
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
