"""Films of coloured scenes, a model that knows colours, and a live source on loopback."""

import http.server
import io
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from classifier.bundle.image_reader import ImageReader
from classifier.bundle.predictor import Judgement, Predictor
from classifier.data.decoding.image_spec import ImageSpec
from classifier.metrics.decisions import Calibration
from classifier.metrics.hierarchy import Hierarchy

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}
CLASSES = ("red", "green", "blue")
FPS = 25


class ColourModel(Predictor):
    """Answers with the colour of an image; grey is none that it is sure of, and black is unlike anything seen."""

    def __init__(self) -> None:
        self.spec = ImageSpec(16, 3, "stretch", 1 << 24)
        self.images = ImageReader(self.spec, 1 << 24, 10.0)
        self.calibration, self.ood_detector = Calibration(images=1, set_threshold=0.2), None
        self.task = "multiclass"
        self.hierarchy: Hierarchy | None = None
        self.seconds = 0.0
        """That an answer takes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    def judge(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Judgement:
        time.sleep(self.seconds)
        means_NK = images_NCHW[:, :, 4:].mean((2, 3)).astype(np.float32)  # below the number
        exponents_NK = np.exp((means_NK - means_NK.max(1, keepdims=True)) / 30)
        probabilities_NK = exponents_NK / exponents_NK.sum(1, keepdims=True)
        decisions_N = self.calibration.decide(probabilities_NK, self.hierarchy)
        return Judgement(probabilities_NK, decisions_N, probabilities_NK > 0.2, None, means_NK.max(1) < 10)


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


def draw_frame(colour: str, number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame of one colour, whose top row has its number in binary, in blocks of 4 x 4 pixels."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:] = COLOURS.get(colour, (0, 0, 0))
    for bit in range(size[0] // 4):
        pixels[:4, 4 * bit : 4 * bit + 4] = 255 if number >> bit & 1 else 0
    return pixels


def read_number(pixels_HWC: np.ndarray) -> int:
    return sum(
        1 << bit for bit in range(pixels_HWC.shape[1] // 4) if pixels_HWC[1:3, 4 * bit + 1 : 4 * bit + 3].mean() > 127
    )


def write_film(target: Path | io.BytesIO, scenes: Sequence[tuple[str, float]], kind: str = "mp4", **muxer: str) -> None:
    """Write scenes, each a colour for so many seconds."""
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(FPS), "crf": "10"}
    where: Any = str(target) if isinstance(target, Path) else target
    with av.open(where, "w", format=kind, options=muxer) as film:
        stream = film.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        colours = [colour for colour, seconds in scenes for _ in range(round(seconds * FPS))]
        for number, colour in enumerate(colours):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(colour, number), format="rgb24")))
        film.mux(stream.encode(None))


class LiveSource:
    """MPEG-TS over HTTP at its own pace, whoever reads it; each connection begins with the frame of its time."""

    def __init__(self, packets: Sequence[bytes], interval: float, lasts: Callable[[int], int]) -> None:
        self.packets, self.connections = packets, 0
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = source.connections
                source.connections += 1
                self.send_response(200)
                self.end_headers()
                begin = time.monotonic()
                try:
                    for n, packet in enumerate(source.packets[: lasts(number)]):
                        time.sleep(max(0.0, begin + n * interval - time.monotonic()))
                        self.wfile.write(packet)
                        source.sent = n
                except OSError:
                    pass

            def log_message(self, *_: object, **__: object) -> None:
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self.sent = -1
        """The newest frame that was sent."""
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/live.ts"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Chunks(io.RawIOBase):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self.parts.append(bytes(part))
        return len(part)


def encode_stream(scenes: Sequence[tuple[str, float]], video_seconds: float | None = None) -> list[bytes]:
    """The bytes of an MPEG-TS stream, cut after each frame. video_seconds: with sound, which goes on after these."""
    chunks, cut = _Chunks(), []
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5", "crf": "10"}
    muxer = {"flush_packets": "1", "max_interleave_delta": "1"}
    with av.open(chunks, "w", format="mpegts", options=muxer, buffer_size=188) as film:
        stream = film.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = film.add_stream("mp2", rate=48000, layout="mono") if video_seconds else None
        colours = [colour for colour, seconds in scenes for _ in range(round(seconds * FPS))]
        for number, colour in enumerate(colours):
            if not video_seconds or number < video_seconds * FPS:
                film.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(colour, number), format="rgb24")))
            if sound:
                samples = np.zeros((1, 48000 // FPS), np.int16)
                silence = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                silence.sample_rate, silence.pts = 48000, number * samples.size
                film.mux(sound.encode(silence))
            cut.append(b"".join(chunks.parts))
            chunks.parts.clear()
        film.mux(stream.encode(None))
    cut[-1] += b"".join(chunks.parts)
    return cut


@pytest.fixture
def live() -> Iterator[Callable[..., LiveSource]]:
    """Start a live source. speed: times real time. lasts: frames of each connection, by its number."""
    sources: list[LiveSource] = []

    def start(
        scenes: Sequence[tuple[str, float]], *, speed: float = 1.0, lasts: Callable[[int], int] = lambda _: 1 << 30
    ) -> LiveSource:
        sources.append(LiveSource(encode_stream(scenes), 1 / FPS / speed, lasts))
        return sources[-1]

    yield start
    for source in sources:
        source.close()
