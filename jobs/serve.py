"""Serve models over HTTP: python jobs/serve.py runs/NAME

Answers POST /predict with an image, and the Open Inference Protocol at /v2; /openapi.json describes both, /metrics is
for Prometheus. kill -HUP loads what has changed on disk, without losing a request; SIGTERM ends after the last answer.
"""

import asyncio
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.fields import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range
from classifier.errors import ConfigError

from .cli.command import main
from .cli.verb import ModelOptions, Request, Verb, positional

if TYPE_CHECKING:
    from classifier.serve.registry import Source

    from .launch.service import Service
    from .launch.serving import Scale

LIMITS = ("data.max_pixels", "data.max_bytes", "data.max_seconds")
WORKERS = ("workers.cpus", "workers.gpus")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelOptions):
    bundles: tuple[str, ...] = positional(
        "Folders of runs, searches or bundles, or NAME=FOLDER; of several with one NAME, the last is current.",
        default=(),
    )
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs --key_file."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """Port to listen on; 0: any free one."""
    key_file: str | None = None
    """File of the hashes of API keys, which requests then need: Authorization: Bearer KEY."""
    add_key: str | None = None
    """Make a key of this name in --key_file, print it, and end."""
    role: Literal["predict", "admin"] = "predict"
    """Of the key to add; an admin may also load models."""
    replicas: str | None = None
    """Serve by this many processes (N, MIN-MAX or auto) on a Ray cluster; --workers.cpus: of each."""
    deadline: PositiveFloat = 2.0
    """Seconds in which a request is answered, or refused with 429."""
    max_images: PositiveInt = 64
    """Images in a request."""
    max_request_mb: PositiveInt = 32
    """Size of a request."""
    max_requests: PositiveInt = 512
    """Requests in progress at once."""
    share: Fraction = 0.0
    """Share of the requests on which a new version is tried first; 0 switches at once."""
    shadow: bool = False
    """Return the old version's answers meanwhile."""
    share_requests: PositiveInt = 100
    """Requests to compare before a new version takes over."""
    max_errors: Fraction = 0.01
    """Share of them that it may fail; above, it is rolled back."""
    max_disagreement: Fraction = 0.05
    """Share of their images that may get another class."""
    max_slowdown: PositiveFloat = 2.0
    """How many times slower it may be."""
    maps: bool = True
    """Draw heatmaps (Grad-CAM), if asked, where torch is installed; in a process of their own."""
    films: NonNegativeInt = 0
    """Films that POST /watch takes at once; 0: none."""
    film_mb: PositiveInt = 512
    """Size of a film."""
    film_seconds: PositiveFloat = 600.0
    """Seconds for a film and its upload."""
    drain: NonNegativeFloat = 0.0
    """Seconds to go on, unready, after SIGTERM: until load balancers know."""
    log: bool = True
    """Write a line of JSON for each request to stderr; of its content, only a digest."""
    capture: str | None = None
    """Folder to keep answers in, in Parquet files; of images, a digest and features."""
    capture_images: bool = False
    """Keep the images, too, as the model saw them."""
    capture_share: Fraction = 1.0
    """Share of the requests to keep."""
    capture_mb: PositiveInt = 1024
    """Size of all that is kept; the oldest is deleted beyond it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What computes: an export, or torch. auto: torch on a GPU, else an export to ONNX if there is one."""


VERB = Verb(
    name="serve",
    examples=(
        "runs/NAME",
        "cats=runs/cats-3 dogs=deploy/ --port 9000",
        "--key_file keys.txt --add_key ann",
        "runs/NAME --host 0.0.0.0 --key_file keys.txt --share 0.1",
        "runs/NAME --replicas auto",
    ),
    options=ServeOptions,
    settings=(*LIMITS, *WORKERS),
)


def serve(request: Request) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from classifier.serve.guard import LOOPBACK

    options = request.options
    if options.add_key:
        return _add_key(options)
    sources = read_sources(options.bundles)
    if options.host not in LOOPBACK and not options.key_file:
        raise ConfigError(
            f"--host {options.host} lets other machines ask: give --key_file, too (make keys with --add_key)"
        )
    if options.replicas:
        return _serve_on_cluster(request, sources)
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        runner.run(_serve(request, sources))
    return None


async def _serve(request: Request, sources: "Sequence[Source]") -> None:
    from classifier.serve.connection import listen
    from classifier.serve.server import Server

    from .launch.service import Service

    options, service = request.options, Service(request, sources)
    app = service.app
    try:
        listener = listen(options.host, options.port, app.bounds)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise ConfigError(f"{where} cannot be listened on ({error.strerror or error}): choose another --port") from None
    try:
        await service.open()
    except BaseException:
        listener.close()
        await app.registry.close()
        raise
    host, port = listener.getsockname()[:2]

    def say_where() -> None:
        for model in app.registry.models.values():
            version = model.current
            print(f"{model.name}: {version.predictor.engine.description}, batches of up to {version.batcher.max_size}")
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    await Server(app, listener, drain_seconds=options.drain).run(say_where, service.reload)


def _serve_on_cluster(request: Request, sources: "Sequence[Source]") -> None:
    from classifier.bundle import document
    from classifier.serve.keys import Keys

    from .launch.serving import run_replicas
    from .serve import make_replica_service  # by a name that replicas can import, however this was started

    options = request.options
    if options.drain:
        raise ConfigError("--drain is for one process, not for --replicas: leave one of them out")
    given = asdict(options) | request.changes
    _read_request(given)
    if options.key_file:
        Keys.read(Path(options.key_file))
    for source in sources:
        document.read(source.path)
    run_replicas(
        functools.partial(make_replica_service, given),
        _read_scale(request),
        (options.host, options.port),
    )


def make_replica_service(given: Mapping[str, Any]) -> "Service":
    """Make what a replica serves. given: options and settings by name. ConfigError if one is wrong."""
    from .launch.service import Service

    request = _read_request(given)
    service = Service(request, read_sources(request.options.bundles))
    # Another replica would answer with the version before.
    service.app.routes = [route for route in service.app.routes if not route.path.endswith("/load")]
    return service


def deploy(given: Mapping[str, Any]) -> Any:
    """Return what Ray Serve runs, for KubeRay and `serve run`: classifier_jobs.serve:deploy. given: as above."""
    from .launch.serving import build_application

    request = _read_request(given)
    if not request.options.key_file:
        raise ConfigError("key_file is missing: other machines can ask (make keys with serve --add_key)")
    request.trust_named_models()
    return build_application(functools.partial(make_replica_service, dict(given)), _read_scale(request))


def _read_request(given: Mapping[str, Any]) -> Request:
    if unknown := given.keys() - VERB.flags.keys() - {"bundles"}:
        raise ConfigError(f"{sorted(unknown)[0]!r} is no option of serve: see {VERB.name} --help-all")
    changes = {name: value for name, value in given.items() if name in VERB.setting_flags}
    Experiment().override_all(changes)
    options = ServeOptions(**{name: value for name, value in given.items() if name not in changes})
    for name in ("capture", "films"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is for one process, not for --replicas: leave one of them out")
    return Request(options, changes)


def _read_scale(request: Request) -> "Scale":
    from .launch.serving import Scale

    options = request.options
    workers = Experiment().override_all(request.changes).workers
    return Scale(options.replicas or "auto", workers, options.deadline, options.max_requests)


def read_sources(words: Sequence[str]) -> "list[Source]":
    """Read what to serve: FOLDER or NAME=FOLDER. ConfigError if a name cannot stand in an address."""
    from classifier.serve.registry import Source

    if not words:
        raise ConfigError("BUNDLES are missing: give the folder of a run, a search or a bundle")
    sources = []
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or "/" in name:
            path = word
            folder = Path(path).resolve()
            name = folder.parent.name if folder.name == "bundle" else folder.name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot name a model: give NAME={path}, of letters, digits, '.', '_', '-'")
        sources.append(Source(name, Path(path)))
    return sources


def _add_key(options: ServeOptions) -> None:
    from classifier.serve.keys import add_key

    if not options.key_file:
        raise ConfigError("--add_key needs the file to write to: give --key_file, too")
    secret = add_key(Path(options.key_file), options.add_key or "", options.role)
    print(f"the key of {options.add_key}, which is stored nowhere; {options.key_file} has its hash:", file=sys.stderr)
    print(secret)


def _find_loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    """uvloop, which is twice as fast as Python's own loop and does not exist for Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main(VERB, serve)
