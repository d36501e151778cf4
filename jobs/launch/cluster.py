"""The Ray cluster: joined or started, and what it has room for."""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path

from classifier.config.sections import WorkersConfig
from classifier.errors import ConfigError
from classifier.runs.folder import Run
from jobs.cli.environment import TOKEN, VERBS

REACH_SECONDS = 5.0
# Seconds between two looks at a cluster that has no room.
WAIT_EVERY = 10.0
logger = logging.getLogger(__name__)


def connect(dashboard: bool = True) -> dict[str, float]:
    """Join the cluster at RAY_ADDRESS, or one on this machine (started if need be); its resources.

    Starting one without the dashboard is quicker; but trials that launch workers of their own need it, since without
    it the workers of a stopped trial hold their cores for half a minute.
    """
    import ray

    # Tune looks for files of its loggers, which are off; the cluster's token is told in the README.
    for name in ("ray.tune", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = _address()
        # Workers find the packages beside this file, installed or not; under `ray job submit --working-dir` Ray
        # brings them itself.
        on_term = signal.getsignal(signal.SIGTERM)
        path = os.pathsep.join(p for p in (str(VERBS.parent), os.environ.get("PYTHONPATH", "")) if p)
        try:
            ray.init(
                address,
                logging_level=logging.WARNING,
                log_to_driver=False,
                include_dashboard=dashboard,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
            )
        except ConnectionError as error:
            raise ConfigError(
                f"the Ray cluster at {address} lets nobody in ({error}): is it the right one, and "
                f"its token in ~/.ray/auth_token or RAY_AUTH_TOKEN?"
            ) from None
        if TOKEN.is_file() and TOKEN.stat().st_uid == os.getuid():
            TOKEN.chmod(0o600)  # Ray lets everyone on this machine read what it makes
        # Ray has put a handler in place of ours, which would end the process before it has saved.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)
    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def _address() -> str:
    """RAY_ADDRESS; else the cluster that `ray start` began on this machine, while it lives; else local, a new one.

    ConfigError if nobody listens at RAY_ADDRESS. Ray itself would knock for minutes, there and where a cluster that
    this machine had once is dead.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    last = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    address = named or (last.read_text().strip() if last.is_file() else "local")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():  # auto or local: Ray finds it or starts it
        return address
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        if not named:
            return "local"
        raise ConfigError(
            f"RAY_ADDRESS is {address}, where no cluster answers ({error}): start it, or unset it"
        ) from None
    return address


def enter_driver_folder(folder: str) -> None:
    """Go to the driver's working directory, where this machine has it, so that relative paths mean the same."""
    with contextlib.suppress(OSError):
        os.chdir(folder)


def worker_resources(workers: WorkersConfig, resources: dict[str, float]) -> dict[str, float]:
    """What one worker (or trial) reserves."""
    gpus = workers.gpus if workers.gpus is not None else float(resources.get("GPU", 0) >= 1)
    return {"CPU": workers.cpus or 1.0} | ({"GPU": gpus} if gpus else {})


def max_concurrent_trials(workers: WorkersConfig, resources: dict[str, float]) -> int:
    """How many trials can be placed at once."""
    wanted, count = worker_resources(workers, resources), workers.count
    return min(int(resources.get(name, 0.0) / (amount * count) + 1e-9) for name, amount in wanted.items())


def trial_resources(workers: WorkersConfig, resources: dict[str, float]) -> dict[str, float]:
    """What a trial's own process reserves. One of several workers only waits for them: it must take no core of theirs.

    Ray refuses a process that reserves nothing; a byte of memory is next to nothing.
    """
    return worker_resources(workers, resources) if workers.count == 1 else {"memory": 1.0}


def largest_node_cores() -> float:
    """CPU cores of the largest node: no worker can have more."""
    import ray

    return max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])


def describe_shortage(workers: WorkersConfig, resources: dict[str, float]) -> str | None:
    """The sum that shows why the cluster as it is has no room for these workers; None where it has."""
    name, count = ("workers.min", workers.min) if workers.min else ("workers.count", workers.count)
    for resource, amount in worker_resources(workers, resources).items():
        there = resources.get(resource, 0.0)
        if count * amount > there + 1e-9:
            setting = f"workers.{resource.lower()}s"
            return (
                f"{name} {count} x {setting} {amount:g} = {count * amount:g} {resource}, "
                f"but the cluster has {there:g}: lower --{name} or --{setting}"
            )
    return None


def refuse_unplaceable(workers: WorkersConfig, resources: dict[str, float]) -> None:
    """ConfigError, with the sum that shows why, if the cluster has no room, nor gets it while workers.wait lasts."""
    if workers.min and workers.min > workers.count:
        raise ConfigError(f"workers.min {workers.min} is more than workers.count {workers.count}: lower it")
    from ray.autoscaler.sdk import request_resources

    began, asked = time.monotonic(), False
    try:
        while problem := describe_shortage(workers, resources):
            if time.monotonic() - began >= 60 * workers.wait:
                mend = "" if workers.wait else ", or wait for more nodes by --workers.wait MINUTES"
                raise ConfigError(problem + mend)
            if not asked:  # an autoscaler starts nodes for what is wanted of it alone
                request_resources(bundles=[worker_resources(workers, resources)] * (workers.min or workers.count))
                asked = True
            logger.warning("waiting for the cluster to grow: %s", problem.partition(":")[0])
            time.sleep(min(WAIT_EVERY, 60 * workers.wait))
            resources = connect()
    finally:
        if asked:  # what comes now asks for itself, and idle nodes may go
            request_resources(bundles=[])


def refuse_unshared(run: Run) -> None:
    """ConfigError if a node of the cluster does not see the run's folder, and the run has no storage."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != here and n["Resources"].get("CPU", 0) > 0]
    if run.storage is not None or not others:
        return
    word = run.folder.resolve() / ".shared"
    word.write_text(uuid.uuid4().hex)

    @ray.remote(num_cpus=0)
    def sees(path: str, text: str) -> bool:
        return Path(path).exists() and Path(path).read_text() == text

    try:
        answers = [
            sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(word), word.read_text()
            )
            for node in others
        ]
        blind = [n["NodeManagerHostname"] for n, sees in zip(others, ray.get(answers), strict=True) if not sees]
    finally:
        word.unlink()
    if blind:
        raise ConfigError(
            f"{run.folder} is not on {', '.join(sorted(set(blind)))}: give --out a folder that all nodes share, or "
            "--storage a place that they all reach, as s3://bucket/runs"
        )


def kill_on_node(node: str, pid: int | None = None) -> None:
    """SIGKILL a process on a node of the cluster, or the node itself: its Ray process, and all that it runs.

    ConfigError for the head, with which the cluster would end.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    connect()
    heads = {one["NodeID"] for one in ray.nodes() if "node:__internal_head__" in one["Resources"]}
    if pid is None and node in heads:
        raise ConfigError("a worker runs on the cluster's head, which the drill does not kill: leave --nodes out")

    @ray.remote(num_cpus=0, max_retries=0)
    def strike() -> None:
        os.kill(pid or os.getppid(), signal.SIGKILL)

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        ray.get(strike.options(scheduling_strategy=strategy).remote())
    except RayError:  # the node is gone, and the answer with it
        if pid is not None:
            raise
