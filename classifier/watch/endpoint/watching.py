"""What the process of a film does: it reads it, answers its frames, and reports, a JSON object for each event.

FFmpeg decodes here what a stranger has sent. It is given a list of formats, none of which refers to other files, and no
protocol; memory is limited; and whatever happens to it, only this film is lost.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.bundle.exported import fingerprint
from classifier.config.trust import trust
from classifier.data.decoding.memory import limit_own_memory
from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.errors import ClassifierError, DataError, RunError
from classifier.runtime.child_process import become_helper
from classifier.watch.counts import Counts
from classifier.watch.endpoint.film_job import FilmJob
from classifier.watch.endpoint.spool import Spool
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observation, Observer
from classifier.watch.sources.address import Address
from classifier.watch.sources.live import read_film
from classifier.watch.sources.reader import FrameReader
from classifier.watch.sources.video import FilmContent, Video
from classifier.watch.watcher import Watcher

if TYPE_CHECKING:
    from classifier.bundle.predictor import Predictor

NAME = "film"
"""The source of its events."""
REPORTED = ("frames", "damaged", "unchanged", "answered", "alerts")
"""Of the counts, those that a film has."""
ERRORS = (409, 422)
"""HTTP statuses of what it reports: another model lies on the disk; the film cannot be watched."""
_FORMATS = "mov,matroska,mpegts,mpeg,mpegvideo,avi,flv,mjpeg,mpjpeg,jpeg_pipe,ogg,asf,h264,hevc,m4v,ivf,obu,gif,mxf"
_NICENESS = 5
"""Answers to images go first."""


def open_predictor(device: str, engine: str, limits: dict[str, Any], path: Path) -> "Predictor":
    """Open a model that computes in one thread. limits: of an image, by the names of Predictor."""
    from classifier.bundle.predictor import Predictor

    predictor = Predictor(path, device=device, engine=engine, threads=1, **limits)
    if predictor.uses_torch:
        import torch

        torch.set_num_threads(1)
    return predictor


def watch_film(job: FilmJob, body: Connection, reports: Connection, import_paths: Sequence[str]) -> None:
    """Watch a film that comes in parts, of which an empty one is the end; report to its end or to an error.

    Reports: `ready` for the first part, `opened` after the first answer, each `event`, and `finished` or `failed`.
    """
    become_helper(_NICENESS)
    trust(*import_paths)
    counts = Counts()

    def report(kind: str, **fields: Any) -> None:
        reports.send_bytes(json.dumps({"kind": kind} | fields).encode())

    def fail(status: int, error: str) -> None:
        report("failed", status=status, error=error, counts=_select(counts))

    with contextlib.suppress(OSError):  # the server takes no more reports
        try:
            with pillow_limits_off():
                _watch(job, body, counts, report)
            report("finished", counts=_select(counts))
        except RunError as error:
            fail(409, str(error))
        except ClassifierError as error:
            fail(422, str(error))
        except MemoryError:
            fail(422, "the film needs too much memory: send one with smaller frames")


def _watch(job: FilmJob, body: Connection, counts: Counts, report: Callable[..., None]) -> None:
    if fingerprint(job.path) != job.digest:
        raise RunError(
            "the model has changed on disk since the server loaded it: no film is watched until it is loaded"
        )
    predictor, settings = job.open_predictor(job.path), job.settings
    limit_own_memory(job.max_pixels)
    report("ready")
    spool = Spool(body.recv_bytes, job.length)
    video = Video(Address("film", "", "the film"), job.max_pixels, counts=counts, content=_describe(spool, job.length))
    smoothing = {"half_life": settings.half_life, "motion": settings.motion}
    observer = Observer(predictor, counts, WatchMetrics(counts, NAME), region=settings.region, **smoothing)
    is_open = False

    def tell(event: dict[str, Any]) -> None:
        report("event", event=event)

    def tell_once(_: Observation) -> None:
        nonlocal is_open
        if not is_open:
            is_open = True
            report("opened")

    watcher = Watcher(NAME, observer, settings.rules, counts, listeners=[tell], on_observation=tell_once)
    with FrameReader(read_film(video), threading.Event(), counts, fps=settings.fps, keeps_all=True) as reader:
        watcher.run(reader, lambda: False)
    if spool.error:
        raise DataError(f"the film cannot be kept on the server's disk ({spool.error.strerror}): try again later")


def _describe(spool: Spool, length: int | None) -> FilmContent:
    """Return how FFmpeg is to read a film."""
    options = {"format_whitelist": _FORMATS, "skip_estimate_duration_from_pts": "1"}
    start = spool.peek(4)
    name = "mjpeg" if start[:2] == b"\xff\xd8" else "mpjpeg" if start.lstrip(b"\r\n")[:2] == b"--" else None
    if length is None:  # it may be live
        options |= {"probesize": "500000", "analyzeduration": "1000000"}
        if name:  # whose frames have no times of their own
            options |= {"use_wallclock_as_timestamps": "1", "fpsprobesize": "0"}
    return FilmContent(spool, options, name)


def _select(counts: Counts) -> dict[str, int]:
    numbers = asdict(counts)
    return {name: numbers[name] for name in REPORTED}
