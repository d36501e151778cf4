"""The application of `serve` on a Ray cluster: replicas with all models, behind HAProxy on every machine.

HAProxy hands requests straight to the replicas, to the one with the fewest, without a Python process in between. If a
replica dies before it has answered, another one is asked: an answer changes nothing, so it may be computed twice.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifier.config.sections import WorkersConfig
from classifier.errors import ConfigError, in_short

from .cluster import DriverContext, connect, describe_shortage, worker_resources
from .local_cluster import find_session

if TYPE_CHECKING:
    from ray.serve import Application

    from .service import Service

NAME = "classifier"
"""Of the application in Ray Serve."""
CORE_REQUESTS = 4
"""Requests in progress per core of a replica from which on another one is started: more only wait (LOG.md)."""
GRACE_SECONDS = 1.0
"""Added to the deadline of a request, for those that are in progress when a replica ends."""
SWITCH_SECONDS = 5e-4
"""As in classifier/serve/server.py."""
RETRIED_BYTES = 256 << 10
"""Size of a request up to which HAProxy keeps it, to ask another replica."""
ENVIRONMENT = {
    # Ray has it for Linux only; elsewhere its own proxy, a Python process, asks no second replica.
    "RAY_SERVE_ENABLE_HA_PROXY": str(int(sys.platform == "linux")),
    # By default only what no replica has got is sent to another one. HAProxy repeats only what it has read whole before
    # it handed it on, for which Ray has no setting: this one ends a line of HAProxy's configuration, and adds another.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response\noption http-buffer-request",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(RETRIED_BYTES),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "30",
    # HAProxy knows within a second that a replica ends; Ray would wait for load balancers it does not know.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # Nothing of the application blocks its event loop, so it needs no thread of its own.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}
"""Of every process of Ray Serve: what it reads when it is imported."""


@dataclass(frozen=True)
class Scale:
    """How many replicas there are, and how large. replicas: N, MIN-MAX or auto, of at most what there is room for."""

    replicas: str
    workers: WorkersConfig
    deadline_seconds: float
    """Of a request."""
    requests: int
    """In progress at once in a replica, at most."""

    def count(self, resources: dict[str, float]) -> tuple[int, int]:
        """Return the least and the largest number of replicas. ConfigError if they cannot be read."""
        if self.replicas == "auto":
            needed = worker_resources(self.workers, resources)
            return 1, max(1, min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in needed.items()))
        match = re.fullmatch(r"([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", self.replicas)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--replicas is {self.replicas!r}: it must be a number, MIN-MAX or auto")
        return int(match[1]), int(match[2] or match[1])


def build_application(make_service: "Callable[[], Service]", scale: Scale, turn: int = 0) -> "Application":
    """Return what Ray Serve runs. make_service: pickled by its name. turn: another one has the replicas reload."""
    import ray
    from ray import serve

    resources = {name: float(amount) for name, amount in ray.cluster_resources().items()}
    low, high = scale.count(resources)
    reserved = worker_resources(scale.workers, resources)
    how_many: dict[str, Any] = {"num_replicas": low}
    if high > low:
        target = CORE_REQUESTS * max(1.0, reserved["CPU"])
        bounds = {"min_replicas": low, "max_replicas": high, "target_ongoing_requests": target}
        how_many = {"autoscaling_config": bounds | {"upscale_delay_s": 5.0}}
    decorate: Any = serve.deployment  # whose types know functions alone
    deployment = decorate(serve.ingress()(_Replica)).options(
        name="replica",
        **how_many,
        ray_actor_options={"num_cpus": reserved["CPU"], "num_gpus": reserved.get("GPU", 0.0)},
        # The application itself refuses what is too much, with 429.
        max_ongoing_requests=2 * scale.requests,
        graceful_shutdown_timeout_s=scale.deadline_seconds + GRACE_SECONDS,
        health_check_period_s=2.0,
        max_surge_percent=100,  # new replicas answer before old ones end
        logging_config={"enable_access_log": False},
        user_config={"turn": turn},
        # With a version of its own, another turn would start other replicas. Ray lets only itself name one.
        version=NAME,
        _internal=True,
    )
    return deployment.bind(make_service, DriverContext.current())


def run_replicas(make_service: "Callable[[], Service]", scale: Scale, address: tuple[str, int]) -> None:
    """Serve until SIGTERM or Ctrl-C; SIGHUP: the replicas reload. ConfigError if the cluster cannot do that."""
    resources = connect(dashboard=False)
    environment = {name: os.environ.get(name, value) for name, value in (ENVIRONMENT | _separate_session()).items()}
    os.environ.update(environment)
    from ray import serve  # which reads it
    from ray.exceptions import RayError

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    _refuse_unplaceable(scale, resources)
    _refuse_unreachable(address[0])
    if serve.status().proxies:
        raise ConfigError("Ray Serve runs on this cluster already: end it first (serve shutdown), or use another one")
    host, port = address[0], address[1] or find_free_port()
    with _signals() as has_changed:
        try:
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": host, "port": port},
                controller_options={"runtime_env": {"env_vars": environment}},
            )
            _run(make_service, scale, turn=0)
            print(f"{_describe(*scale.count(resources))}: http://{host}:{port}", flush=True)
            for turn in itertools.count(1):
                has_changed.wait()
                has_changed.clear()
                try:
                    _run(make_service, scale, turn)
                except (ConfigError, RayError, TimeoutError) as error:  # those that answer go on
                    print(f"serve: not all replicas have loaded what has changed: {in_short(error)}", file=sys.stderr)
        except _Ended:
            serve.delete(NAME)  # waits for the last answers, while HAProxy still hands them on
        finally:
            serve.shutdown()


class _Ended(BaseException):
    """SIGTERM or Ctrl-C."""


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Raise _Ended at the first SIGTERM or SIGINT, and ignore further ones; set the event at SIGHUP."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    has_changed = threading.Event()

    def answer(number: int, _: object) -> None:
        if number not in (signal.SIGTERM, signal.SIGINT):
            has_changed.set()
            return
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, signal.SIG_IGN)
        raise _Ended

    for number in numbers:
        signal.signal(number, answer)
    try:
        yield has_changed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(make_service: "Callable[[], Service]", scale: Scale, turn: int) -> None:
    from ray import serve

    try:
        serve.run(build_application(make_service, scale, turn), name=NAME)
    except RuntimeError as error:
        raise ConfigError(f"the replicas do not start: {_find_reason(error)}") from None


class _Replica:
    """One process: the application, behind an HTTP server of Ray's."""

    async def __init__(self, make_service: "Callable[[], Service]", driver: DriverContext) -> None:
        driver.enter()
        self._service, self._turn = make_service(), None
        await self._service.open()
        sys.setswitchinterval(SWITCH_SECONDS)

    def __serve_build_asgi_app__(self) -> Any:
        return self._service.app

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Called when the replica begins, and whenever `turn` has changed."""
        if self._turn is not None:
            await self._service.reload()
        self._turn = config["turn"]

    async def __del__(self) -> None:
        """Called, and awaited, by Ray."""
        await self._service.close()

    def check_health(self) -> None:
        if not self._service.is_ready:
            raise RuntimeError("the models are not loaded")


def _separate_session() -> dict[str, str]:
    """Return where HAProxy keeps its files and listens, in a session of this process: there may be several.

    Whoever can open its socket commands it, so it is where only this user can; of a cluster that was joined it is where
    Ray has it, which every user of the machine can open.
    """
    session = find_session()
    if session is None:
        return {}
    folder = session / "h"  # sockets have short paths
    files = {"CONFIG_FILE_LOC": "c", "SOCKET_PATH": "a", "METRICS_SOCKET_PATH": "m", "SERVER_STATE_FILE": "s"}
    values = {name: str(folder / file) for name, file in files.items()} | {"SERVER_STATE_BASE": str(folder)}
    values |= {name: str(find_free_port()) for name in ("METRICS_PORT", "STATS_PORT")}
    return {f"RAY_SERVE_HAPROXY_{name}": value for name, value in values.items()}


def _describe(low: int, high: int) -> str:
    return f"{low} to {high} replicas" if high > low else f"{low} replica{'s' * (low > 1)}"


def find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _refuse_unplaceable(scale: Scale, resources: dict[str, float]) -> None:
    """ConfigError if the cluster has no room for the least number of replicas."""
    workers = dataclasses.replace(scale.workers, count=scale.count(resources)[0], min=None)
    if problem := describe_shortage(workers, resources):
        raise ConfigError(problem.replace("workers.count", "replicas"))


def _refuse_unreachable(host: str) -> None:
    """ConfigError if replicas would listen where HAProxy on other machines of the cluster cannot reach them."""
    import ray

    loopback = {"127.0.0.1", "::1", "localhost"}
    if host in loopback and any(node["NodeManagerAddress"] not in loopback for node in ray.nodes() if node["Alive"]):
        raise ConfigError(
            f"--host {host} cannot be reached from other machines of the cluster: give --host 0.0.0.0 and --key_file"
        )


def _find_reason(error: BaseException) -> str:
    """Return the last line of what a replica has raised."""
    from ray import serve

    application = serve.status().applications.get(NAME)
    replicas = application.deployments.values() if application else ()
    text = next((one.message for one in replicas if one.message), str(error))
    return text.strip().splitlines()[-1].rpartition("Error: ")[2]
