"""The Ray cluster: join or start it, and what it has room for."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.config.sections import WorkersConfig
from classifier.config.trust import trust, trusted
from classifier.errors import ConfigError
from classifier.runs.folder import RunFolder

from ..cli.environment import TOKEN, VERBS
from . import local_cluster

CONNECT_TIMEOUT_SECONDS = 5.0
# Between two looks at a cluster that has no room.
POLL_SECONDS = 10.0
logger = logging.getLogger(__name__)
if TYPE_CHECKING:
    from ray.job_config import JobConfig


def connect(dashboard: bool = True) -> dict[str, float]:
    """Join the cluster at RAY_ADDRESS, or one on this machine, starting it if needed; the cluster's resources.

    A cluster starts faster without the dashboard, but trials that launch their own workers need it: without it the
    workers of a stopped trial hold their cores for half a minute. A cluster that is started here can be reached from
    this machine only (environment.setup).
    """
    import ray

    # Tune warns about files of its loggers, which are off; cluster/README.md explains the cluster's token.
    for name in ("ray.tune", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = _address()
        # Workers import the packages from this checkout, installed or not; with `ray job submit --working-dir` Ray
        # ships them itself.
        on_term = signal.getsignal(signal.SIGTERM)
        path = os.pathsep.join(p for p in (str(VERBS.parent), os.environ.get("PYTHONPATH", "")) if p)
        try:
            ray.init(
                address,
                logging_level=logging.WARNING,
                log_to_driver=False,
                include_dashboard=dashboard,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
                job_config=_make_job_config(),
                _temp_dir=str(local_cluster.open_session()) if address == "local" else None,
            )
        except ConnectionError as error:
            raise ConfigError(
                f"the Ray cluster at {address} refuses the connection ({error}): check RAY_ADDRESS, and "
                "that the cluster's token is in ~/.ray/auth_token or RAY_AUTH_TOKEN"
            ) from None
        if hasattr(os, "getuid") and TOKEN.is_file() and TOKEN.stat().st_uid == os.getuid():
            TOKEN.chmod(0o600)  # Ray creates it readable by everyone on this machine
        # Ray has replaced our handler by one that ends the process before it has saved.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)
    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def _make_job_config() -> "JobConfig":
    """Settings with which workers import nothing from the working directory, unless the user trusts a model.

    Ray would put that directory, which may hold what was sent, before the libraries, whatever PYTHONSAFEPATH says.
    """
    from ray.job_config import JobConfig

    class Safe(JobConfig):
        def _serialize(self) -> str:
            self._py_driver_sys_path.clear()
            return super()._serialize()

    return JobConfig() if trusted() else Safe()


def _address() -> str:
    """RAY_ADDRESS; else the running cluster that `ray start` started on this machine; else "local", a new one.

    ConfigError if nothing listens at RAY_ADDRESS. Ray itself would retry for minutes, there and at the address of a
    cluster that has ended.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    address = named if named not in ("", "auto") else local_cluster.find_address()
    if address is None and named:
        raise ConfigError("RAY_ADDRESS is auto, but no cluster of yours runs on this machine: start one, or unset it")
    host, colon, port = (address or "local").rpartition("://")[2].rpartition(":")
    if address is None or not colon or not port.isdigit():
        return named or "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        if not named:
            return "local"
        raise ConfigError(
            f"RAY_ADDRESS is {named}, but no cluster answers at {address} ({error}): start one there, or unset it"
        ) from None
    return address


@dataclass(frozen=True)
class DriverContext:
    """What a worker takes over from the driver: its working directory, and the code that its user allows to import."""

    folder: str
    trusted: tuple[str, ...]

    @classmethod
    def current(cls) -> "DriverContext":
        """That of this process."""
        return cls(os.getcwd(), trusted())

    def enter(self) -> None:
        """Take it over. Without the folder on this machine, relative paths mean what they mean here."""
        trust(*self.trusted)
        with contextlib.suppress(OSError):
            os.chdir(self.folder)


def worker_resources(workers: WorkersConfig, resources: dict[str, float]) -> dict[str, float]:
    """What one worker reserves."""
    gpus = workers.gpus if workers.gpus is not None else float(resources.get("GPU", 0) >= 1)
    return {"CPU": workers.cpus or 1.0} | ({"GPU": gpus} if gpus else {})


def max_concurrent_trials(workers: WorkersConfig, resources: dict[str, float]) -> int:
    """How many trials fit into the cluster at once."""
    needed, count = worker_resources(workers, resources), workers.count
    return min(int(resources.get(name, 0.0) / (amount * count) + 1e-9) for name, amount in needed.items())


def trial_resources(workers: WorkersConfig, resources: dict[str, float]) -> dict[str, float]:
    """What a trial's own process reserves. With several workers it only waits for them, and must not take their cores.

    Ray refuses a process that reserves nothing, so it reserves a byte of memory.
    """
    return worker_resources(workers, resources) if workers.count == 1 else {"memory": 1.0}


def largest_node_cores() -> float:
    """CPU cores of the largest node: no worker can have more."""
    import ray

    return max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])


def describe_shortage(workers: WorkersConfig, resources: dict[str, float]) -> str | None:
    """Why the cluster has no room for these workers, as a sum; None if it has."""
    name, count = ("workers.min", workers.min) if workers.min else ("workers.count", workers.count)
    for resource, amount in worker_resources(workers, resources).items():
        available = resources.get(resource, 0.0)
        if count * amount > available + 1e-9:
            setting = f"workers.{resource.lower()}s"
            return (
                f"{name} {count} x {setting} {amount:g} = {count * amount:g} {resource}, "
                f"but the cluster has {available:g}: lower --{name} or --{setting}"
            )
    return None


def refuse_unplaceable(workers: WorkersConfig, resources: dict[str, float]) -> None:
    """ConfigError with the sum that shows why, if the cluster has no room, and does not get it within workers.wait."""
    if workers.min and workers.min > workers.count:
        raise ConfigError(f"workers.min {workers.min} is more than workers.count {workers.count}: lower it")
    from ray.autoscaler.sdk import request_resources

    began, has_requested = time.monotonic(), False
    try:
        while problem := describe_shortage(workers, resources):
            if time.monotonic() - began >= 60 * workers.wait:
                hint = "" if workers.wait else ", or wait for more nodes with --workers.wait MINUTES"
                raise ConfigError(problem + hint)
            if not has_requested:  # an autoscaler starts nodes only on request
                request_resources(bundles=[worker_resources(workers, resources)] * (workers.min or workers.count))
                has_requested = True
            logger.warning("waiting for the cluster to grow: %s", problem.partition(":")[0])
            time.sleep(min(POLL_SECONDS, 60 * workers.wait))
            resources = connect()
    finally:
        if has_requested:  # workers now request resources themselves, and idle nodes may go
            request_resources(bundles=[])


def refuse_unshared(run: RunFolder) -> None:
    """ConfigError if the run has no storage and a node of the cluster does not see its folder."""
    fix = (
        "set --out to a folder that all nodes share, or --storage to one that they all reach, such as s3://bucket/runs"
    )
    if run.storage is None:
        refuse_unshared_folder(run.folder, fix)


def refuse_unshared_folder(folder: Path, fix: str) -> None:
    """ConfigError if a node of the cluster does not see this folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != here and n["Resources"].get("CPU", 0) > 0]
    if not others:
        return
    marker = folder.resolve() / ".shared"
    marker.write_text(uuid.uuid4().hex)

    @ray.remote(num_cpus=0)
    def sees(path: str, text: str) -> bool:
        return Path(path).exists() and Path(path).read_text() == text

    try:
        results = [
            sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(marker), marker.read_text()
            )
            for node in others
        ]
        blind = [n["NodeManagerHostname"] for n, sees in zip(others, ray.get(results), strict=True) if not sees]
    finally:
        marker.unlink()
    if blind:
        raise ConfigError(f"{folder} is not shared with {', '.join(sorted(set(blind)))}: {fix}")


def kill_on_node(node: str, pid: int | None = None) -> None:
    """Send SIGKILL to a process on a node, or without a pid to the node's Ray process, which ends the whole node.

    ConfigError for the head node, without which the cluster would end.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    connect()
    heads = {one["NodeID"] for one in ray.nodes() if "node:__internal_head__" in one["Resources"]}
    if pid is None and node in heads:
        raise ConfigError("a worker runs on the cluster's head, which the drill never kills: leave --nodes out")

    @ray.remote(num_cpus=0, max_retries=0)
    def kill() -> None:
        os.kill(pid or os.getppid(), signal.SIGKILL)

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        ray.get(kill.options(scheduling_strategy=strategy).remote())
    except RayError:  # the node is gone, and its reply with it
        if pid is not None:
            raise
