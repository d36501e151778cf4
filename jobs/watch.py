"""Watch a video, a camera or a folder: python jobs/watch.py runs/NAME film.mp4 --alert "intruder > 0.9 for 2s"

SOURCE is a video file, a stream, a camera, or a folder that fills. Alerts are JSON Lines on stdout; with --name or
--out a run folder has them too, with a frame and a clip of each. Without --alert, changes of the answer are printed.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.fields import NonNegativeFloat, PositiveFloat, PositiveInt, Range
from classifier.errors import ConfigError, list_few
from classifier.runtime.cpu import available_cores
from classifier.runtime.threads import limit_to_free_cores

from .cli.command import main
from .cli.interrupts import Interrupts
from .cli.verb import DEFAULT_OUT, OptionalRunOptions, Options, Request, Verb, positional
from .steps.output_run import open_run

if TYPE_CHECKING:
    from classifier.bundle.predictor import Predictor
    from classifier.runs.folder import RunFolder
    from classifier.watch.clips import Recorder
    from classifier.watch.counts import Counts
    from classifier.watch.rules import Rule
    from classifier.watch.sources.address import Address
    from classifier.watch.sources.reader import FrameReader
    from classifier.watch.watcher import Listener

LIMITS = ("data.max_pixels", "data.max_bytes", "data.max_seconds")


@dataclass(frozen=True, kw_only=True)
class WatchOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    source: str = positional("A video file, a URL, a camera (/dev/video0) or a folder.")
    alert: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """A rule: 'CLASS > 0.9 for 2s until < 0.7 every 60s', where all after 0.9 may be left out; for CLASS also 'not
    sure' or 'unlike anything seen'. Without one, changes of the answer are printed. Repeat it for several."""
    fps: PositiveFloat = 5.0
    """Frames a second to answer, at most; of a live source the newest, of a film each."""
    half_life: NonNegativeFloat = 0.5
    """Seconds after which an answer counts half as much; 0: no smoothing. Images of a folder have none."""
    region: str | None = None
    """Part of each frame to answer: x,y,w,h as fractions of its size."""
    motion: Annotated[float, Range(0, 255)] = 0.0
    """Frames whose pixels differ by less, on average, from those of the last one answered keep its answer."""
    before: NonNegativeFloat = 5.0
    """Seconds of a clip before its alert."""
    after: NonNegativeFloat = 5.0
    """Seconds of a clip after it."""
    keep: PositiveInt = 200
    """Clips and frames to keep, the newest."""
    keep_mb: PositiveInt = 1000
    """Size of all of them."""
    webhook: str | None = None
    """Send events to this address, too, as JSON."""
    secret: str | None = None
    """File of the key that signs them (Standard Webhooks)."""
    port: Annotated[int, Range(0, 65535)] | None = None
    """Show a live page, and /metrics, at this port of this machine; 0: any free one."""
    give_up: NonNegativeFloat = 3600.0
    """End when a lost stream has not come back for so many seconds; 0: never."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What computes: an export, or torch. auto: torch on a GPU, else an export to ONNX if there is one."""


VERB = Verb(
    name="watch",
    examples=(
        "runs/NAME film.mp4",
        "runs/NAME rtsp://camera/live --alert 'cat > 0.9 for 2s'",
        "runs/NAME /dev/video0 --port 8080 --region 0.5,0,0.5,1",
        "runs/NAME incoming/ --webhook https://example.com/hook",
    ),
    options=WatchOptions,
    settings=LIMITS,
)


def watch(request: Request) -> None:
    """Watch until the source ends, or SIGTERM or Ctrl-C."""
    from classifier.watch.rules import parse_rule
    from classifier.watch.sources.address import parse_address

    address = parse_address(request.options.source)
    _check(request, address)
    predictor = _open_predictor(request)
    rules = [parse_rule(text, predictor.answer_names) for text in request.options.alert]
    with Interrupts() as interrupts:
        _watch(request, address, predictor, rules, lambda: interrupts.stop_requested)


def _watch(
    request: Request,
    address: "Address",
    predictor: "Predictor",
    rules: "Sequence[Rule]",
    should_stop: Callable[[], bool],
) -> None:
    from classifier.watch.counts import Counts
    from classifier.watch.metrics import WatchMetrics
    from classifier.watch.observer import Observer, Region
    from classifier.watch.page import Page
    from classifier.watch.watcher import Watcher
    from classifier.watch.webhook import Webhook

    options, counts = request.options, Counts()
    metrics = WatchMetrics(counts, _name_model(options.run))
    region = Region.parse(options.region) if options.region else None
    smoothing = {"half_life": options.half_life, "motion": options.motion}
    observer = Observer(predictor, counts, metrics, region=region, **smoothing)
    with ExitStack() as ends:
        reader = _open_reader(request, address, counts)
        page = None
        if options.port is not None:
            page = Page(address.name, counts, metrics, options.port, has_rules=bool(rules))
            ends.callback(page.close)
            _say(page.url)
        run = ends.enter_context(_open_run(options, address))

        def conclude(kind: type[BaseException] | None, *_: object) -> None:
            status = "failed" if kind else "stopped" if should_stop() else "finished"
            _say(_describe(counts))
            if run:
                run.write_result(VERB.name, status, **vars(counts))
                _say(str(run.folder))

        ends.push(conclude)
        listeners: list[Listener] = [_open_log(run, counts, ends)]
        if page:
            listeners.append(page.add_event)
        if options.webhook:
            webhook = Webhook(options.webhook, _read_secret(options), counts, _say)
            ends.callback(webhook.close)
            listeners.append(webhook.send)
        watcher = Watcher(
            address.name,
            observer,
            rules,
            counts,
            listeners=listeners,
            recorder=_open_recorder(options, run, address, counts, ends),
            on_observation=page.show if page else None,
            say=_say,
        )
        with reader:
            watcher.run(reader, should_stop)


@contextmanager
def _open_run(options: WatchOptions, address: "Address") -> "Iterator[RunFolder | None]":
    """Open the run folder, if one is asked for. What it has is kept, whatever happens."""
    if not options.name and not options.out:
        yield None
        return
    asked = Options(name=options.name, out=options.out or DEFAULT_OUT)
    with open_run(asked, address.name, keep=True) as (run, _):
        yield run


def _open_log(run: "RunFolder | None", counts: "Counts", ends: ExitStack) -> "Listener":
    from classifier.watch.event_log import EventLog

    log = EventLog(sys.stdout, run.folder if run else None, counts, _say)
    ends.callback(log.close)
    return log.write


def _open_recorder(
    options: WatchOptions, run: "RunFolder | None", address: "Address", counts: "Counts", ends: ExitStack
) -> "Recorder | None":
    from classifier.watch.clips import Recorder

    if run is None or address.kind == "folder":
        return None
    seconds = {"before": options.before, "after": options.after}
    bounds = {"keep": options.keep, "keep_bytes": options.keep_mb << 20}
    recorder = Recorder(run.folder / "alerts", counts, _say, **seconds, **bounds)
    ends.callback(recorder.close)
    return recorder


def _check(request: Request, address: "Address") -> None:
    """Refuse what cannot be, before the model is loaded."""
    from classifier.watch.observer import Region
    from classifier.watch.sources.address import check_url

    options = request.options
    if options.region:
        Region.parse(options.region)
        if address.kind == "folder":
            raise ConfigError("--region is of videos: images in a folder are answered whole")
    if options.motion and address.kind == "folder":
        raise ConfigError("--motion is of videos: each image in a folder is answered")
    if options.webhook:
        check_url(options.webhook, "webhook")
    elif options.secret:
        raise ConfigError("--secret signs what is sent to --webhook: give that, too")
    _read_secret(options)


def _read_secret(options: WatchOptions) -> bytes | None:
    from classifier.watch.webhook import read_secret

    return read_secret(Path(options.secret)) if options.secret else None


def _open_reader(request: Request, address: "Address", counts: "Counts") -> "FrameReader":
    """Open the source, so that a mistake in it is told at once."""
    from classifier.watch.sources.image_folder import read_folder
    from classifier.watch.sources.live import read_film, read_live
    from classifier.watch.sources.reader import FrameReader

    options, stop = request.options, threading.Event()
    if address.kind == "folder":
        _say(f"watching {address.name} for new images")
        # Each image is answered, however many come at once.
        return FrameReader(read_folder(Path(address.location), stop), stop, counts, fps=1e6, keeps_all=True)
    from classifier.watch.sources.video import Video

    max_pixels = Experiment().override_all(request.changes).data.max_pixels
    open_video = partial(Video, address, max_pixels, counts=counts)
    video = open_video()
    _say(f"{'watching' if video.is_live else 'reading'} {address.name}: {video.describe()}")
    if not video.is_live:
        return FrameReader(read_film(video), stop, counts, fps=options.fps, keeps_all=True)
    frames = read_live(video, open_video, stop, counts, _say, give_up_seconds=options.give_up)
    return FrameReader(frames, stop, counts, fps=options.fps, keeps_all=False)


def _open_predictor(request: Request) -> "Predictor":
    """Open the model to compute on the cores that are free."""
    from classifier.bundle.predictor import Predictor

    options, threads = request.options, available_cores()
    if (named := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        threads = int(named)
    else:
        threads, line = limit_to_free_cores(threads, request.load, "OMP_NUM_THREADS")
        if line:
            _say(line)
    limits = {name.removeprefix("data."): value for name, value in request.changes.items() if name in LIMITS}
    predictor = Predictor(options.run, device=options.device, engine=options.engine, threads=threads, **limits)
    if schema := predictor.bundle.columns:
        _say(f"frames have no columns: {list_few(schema.names, 5)} are missing in all answers")
    if predictor.engine.description.startswith("torch"):
        import torch

        torch.set_num_threads(threads)
    return predictor


def _name_model(path: str) -> str:
    folder = Path(path).resolve()
    return folder.parent.name if folder.name == "bundle" else folder.name


def _describe(counts: "Counts") -> str:
    """What was done, in a line; what is not zero."""
    words = [f"{counts.frames:,} frames", f"{counts.answered:,} answered", f"{counts.alerts:,} alerts"]
    rare = ("unchanged", "dropped", "damaged", "unreadable", "reconnects", "unsaved", "unsent")
    return ", ".join([*words, *(f"{getattr(counts, name):,} {name}" for name in rare if getattr(counts, name))])


def _say(line: str) -> None:
    from .cli.display import display

    display().say(line)


if __name__ == "__main__":
    main(VERB, watch)
