"""Slow: training on two machines of a cluster survives more than twenty faults, and equals an uninterrupted run.

SIGKILL ends a worker, a machine's Ray process, a whole machine, or the driver; a network cable is unplugged for a
minute, a disk is filled, the head crashes and is restarted. Each fault is asserted to have happened, and is over once
there is a newer checkpoint in storage. A table of them is printed (pytest -s).
"""

import json
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from safetensors.torch import load_file

from tests.cluster.conftest import Cluster, start_cluster
from tests.cluster.hosts import Host, can_create_hosts, wait_for

pytestmark = pytest.mark.slow
# About a minute of steps on one core per machine; an epoch has 21.
SETTINGS = ("--model.name", "resnet9_16", "--train.epochs", 120, "--data.batch", 64, "--checkpoint.steps", 20)
SETTINGS += ("--train.keep", "last", "--workers.count", 2, "--out", "/tmp/runs")
CUT_SECONDS, FULL_SECONDS, SILENT_SECONDS = 60, 20, 60


@dataclass
class FaultedRun:
    """A training run with faults, and the time that each fault cost."""

    cluster: Cluster
    name: str
    rng: random.Random
    costs: dict[str, list[float]] = field(default_factory=dict)
    jobs: int = 0

    @property
    def storage(self):
        return self.cluster.shared / "storage" / self.name

    def step(self) -> int:
        steps = [
            int(path.parent.name.removeprefix("step-")) for path in self.storage.glob("checkpoints/*/manifest.json")
        ]
        return max(steps, default=-1)

    def submit(self, *args: object) -> None:
        self.jobs += 1
        storage = ("--storage", self.cluster.shared / "storage")
        self.cluster.submit("python", "jobs/train.py", *args, *storage, name=f"{self.name}-{self.jobs}")

    @property
    def job(self) -> str:
        return f"{self.name}-{self.jobs}"

    def wait_for_progress(self, seconds: float = 240) -> None:
        """Wait for a newer checkpoint than the newest one now."""
        before = self.step()
        start = time.monotonic()
        while self.step() <= before:
            status = self.cluster.status(self.job)
            ok = status in ("RUNNING", "PENDING", "UNKNOWN") and time.monotonic() - start < seconds
            assert ok, (
                f"{self.job} is {status}, no checkpoint after step {before}: {self.cluster.logs(self.job)[-3000:]}"
            )
            time.sleep(0.2)

    def fault(self, kind: str, inject) -> None:
        """Inject a fault at a seeded random moment, and wait until the training has made progress."""
        self.wait_for_progress()
        time.sleep(self.rng.uniform(0, 3))
        start = time.monotonic()
        inject()
        self.wait_for_progress()
        self.costs.setdefault(kind, []).append(time.monotonic() - start)

    def workers(self) -> list[tuple[Host, int]]:
        """Return the worker processes, with their machines."""
        return [(m, pid) for m in self.cluster.machines[1:] for pid in m.processes("ray::RayTrainWorker")]


def kill_worker(run: FaultedRun) -> None:
    machine, pid = run.rng.choice(run.workers())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in machine.processes(""), 10, "the end of the worker")


def kill_node(run: FaultedRun) -> None:
    """Kill a machine's Ray process with everything that it runs, and start it again."""
    cluster, machine = run.cluster, run.rng.choice(run.cluster.machines[1:])
    raylets = machine.processes("raylet/raylet")
    assert raylets
    for pid in raylets:
        os.kill(pid, signal.SIGKILL)
    cluster.nodes[machine.name].wait(timeout=60)
    wait_for(lambda: machine.address not in cluster.alive_nodes(), 120, "the head to notice that it is gone")
    cluster.start(machine)


def power_cut(run: FaultedRun) -> None:
    cluster, machine = run.cluster, run.rng.choice(run.cluster.machines[1:])
    machine.power_off()
    cluster.nodes[machine.name].wait(timeout=60)
    wait_for(lambda: machine.address not in cluster.alive_nodes(), 120, "the head to notice that it is gone")
    machine.power_on()
    cluster.start(machine)


def cut_network(run: FaultedRun) -> None:
    cluster, machine = run.cluster, run.rng.choice(run.cluster.machines[1:])
    machine.unplug(unplugged=True)
    start = time.monotonic()
    wait_for(
        lambda: machine.address not in cluster.alive_nodes(), CUT_SECONDS, "the head to notice that it is unreachable"
    )
    time.sleep(max(0.0, CUT_SECONDS - (time.monotonic() - start)))
    machine.unplug(unplugged=False)
    # A node that was declared dead exits when it reconnects; then it is started again.
    cluster.nodes[machine.name].wait(timeout=120)
    cluster.start(machine)


def kill_driver(run: FaultedRun) -> None:
    drivers = run.cluster.head.processes("jobs/train.py")
    assert drivers
    for pid in drivers:
        os.kill(pid, signal.SIGKILL)
    assert run.cluster.wait_for_end(run.job) == "FAILED"
    run.submit("--resume", run.name, "--out", f"/tmp/runs{run.jobs}")


def fill_disk(run: FaultedRun) -> None:
    """Fill the disk of the machine that writes the checkpoints, for a while."""
    machine = next(m for m in run.cluster.machines[1:] if list_checkpoints(m, "/tmp/classifier"))
    done = machine.run("sh", "-c", "cat /dev/zero > /tmp/full; df --output=avail /tmp | tail -1")
    assert int(done.stdout) < 1000
    time.sleep(FULL_SECONDS)
    machine.run("rm", "/tmp/full")


def list_checkpoints(machine: Host, path: str) -> list[str]:
    return machine.run("sh", "-c", f"ls {path}/*/checkpoints").stdout.split()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if not can_create_hosts():
        pytest.skip("creating machines with their own networks needs root")
    with start_cluster(3) as cluster:
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
        for machine in cluster.machines:
            cluster.start(machine, quick)
        yield cluster


def assert_equal(cluster: Cluster, name: str) -> None:
    """Assert that weights are equal bit for bit, and so are the scores and the image order of each epoch."""
    one, other = (cluster.shared / "storage" / one for one in ("clean", name))
    a, b = (load_file(folder / "bundle" / "model.safetensors") for folder in (one, other))
    assert all((a[key] == b[key]).all() for key in a)
    rows = [
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()] for folder in (one, other)
    ]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"], row["input_wait"]
    assert rows[0] == rows[1]


def print_costs(costs: dict[str, list[float]]) -> None:
    print(f"\n{'fault':<28} {'times':>5} {'median':>8} {'worst':>8}")
    for kind, seconds in costs.items():
        print(f"{kind:<28} {len(seconds):>5} {statistics.median(seconds):>6.0f} s {max(seconds):>6.0f} s")


def test_twenty_faults(cluster: Cluster):
    clean = FaultedRun(cluster, "clean", random.Random(0))
    clean.submit(*SETTINGS, "--name", "clean")
    assert cluster.wait_for_end(clean.job, 600) == "SUCCEEDED", cluster.logs(clean.job)
    run = FaultedRun(cluster, "faulted", random.Random(1))
    run.submit(*SETTINGS, "--name", "faulted")
    faults = (
        [("worker killed", kill_worker)] * 6 + [("node killed", kill_node)] * 4 + [("driver killed", kill_driver)] * 4
    )
    faults += [("power cut", power_cut)] * 2 + [("network cut for a minute", cut_network)] * 2
    faults += [("disk full for 20 s", fill_disk)] * 2
    run.rng.shuffle(faults)
    for kind, inject in faults:
        run.fault(kind, lambda inject=inject: inject(run))
    assert sum(map(len, run.costs.values())) == 20
    assert cluster.wait_for_end(run.job, 600) == "SUCCEEDED", cluster.logs(run.job)
    assert_equal(cluster, "faulted")
    print_costs(run.costs)


def test_head_crash_and_restart():
    """The head's state is in Redis, on another machine: the nodes stay, and the job is submitted again."""
    if not can_create_hosts() or shutil.which("redis-server") is None:
        pytest.skip("needs root, and redis-server")
    with start_cluster(4) as cluster:
        redis_host = cluster.machines.pop()
        args = ("redis-server", "--bind", redis_host.address, "--protected-mode", "no", "--save", "")
        redis = redis_host.start(*args, log=cluster.home / "redis.log")
        state = {"RAY_REDIS_ADDRESS": f"{redis_host.address}:6379"}
        for machine in cluster.machines:
            cluster.start(machine, state)
        run = FaultedRun(cluster, "headless", random.Random(2))
        run.submit(*SETTINGS, "--name", "headless")
        run.wait_for_progress()
        raylets = [pid for machine in cluster.machines[1:] for pid in machine.processes("raylet/raylet")]
        start = time.monotonic()
        cluster.head.power_off()
        cluster.nodes[cluster.head.name].wait(timeout=60)
        cluster.head.power_on()
        cluster.start(cluster.head, state)
        wait_for(lambda: len(cluster.alive_nodes()) == 3, 120, "the nodes to return")
        assert [pid for machine in cluster.machines[1:] for pid in machine.processes("raylet/raylet")] == raylets
        run.submit("--resume", "headless", "--out", "/tmp/again")
        run.wait_for_progress()
        print_costs({"head killed, job submitted again": [time.monotonic() - start]})
        assert cluster.wait_for_end(run.job, 600) == "SUCCEEDED", cluster.logs(run.job)
        rows = [json.loads(line) for line in (run.storage / "history.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, 121))
        redis_host.power_off()
        redis.wait(timeout=30)


def test_training_scales_down_and_up_again(cluster: Cluster):
    """workers.min: training continues without a lost machine, and scales up again when it is back."""
    run = FaultedRun(cluster, "elastic", random.Random(3))
    run.submit(*SETTINGS, "--name", "elastic", "--workers.min", 1, "--train.epochs", 400)
    run.wait_for_progress()
    machine = cluster.machines[2]
    machine.power_off()
    cluster.nodes[machine.name].wait(timeout=60)
    run.wait_for_progress()
    assert len(run.workers()) == 1
    machine.power_on()
    cluster.start(machine)
    wait_for(lambda: len(run.workers()) == 2, 180, "the second worker to return")
    run.wait_for_progress()
    cluster.ray("job", "stop", run.job)
    assert cluster.wait_for_end(run.job) == "STOPPED"
    rows = [json.loads(line) for line in (run.storage / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


def test_preemption_notice_saves_a_checkpoint(cluster: Cluster):
    """No other checkpoint is due, so the one that is found was written for the notice (in Kubernetes, from preStop)."""
    run = FaultedRun(cluster, "preempted", random.Random(4))
    rare = ("--checkpoint.steps", 10**6, "--checkpoint.minutes", "none", "--checkpoint.epochs", 10**6)
    run.submit(*SETTINGS, *rare, "--train.epochs", 2000, "--name", "preempted", "--workers.min", 1)
    wait_for(lambda: (run.storage / "history.jsonl").exists(), 120, "the first epoch")
    assert run.step() == -1
    machine = cluster.machines[2]
    notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
    notice += ("--deadline-remaining-seconds", 30)
    address = ("--address", f"{cluster.head.address}:6379")
    done = machine.run(cluster.python, "-m", "ray.scripts.scripts", "drain-node", *address, *notice)
    assert done.returncode == 0, done.stdout + done.stderr
    start = time.monotonic()
    wait_for(lambda: run.step() > 0, 25, "the checkpoint before the deadline")
    print_costs({"notice to checkpoint": [time.monotonic() - start]})
    wait_for(lambda: len(run.workers()) == 1, 120, "the smaller group")
    lines = len((run.storage / "history.jsonl").read_text().splitlines())
    wait_for(lambda: len((run.storage / "history.jsonl").read_text().splitlines()) > lines, 120, "its next epoch")
    cluster.ray("job", "stop", run.job)
    assert cluster.wait_for_end(run.job) == "STOPPED"


def test_drill_kills_a_node_and_passes():
    """A third machine replaces the one that is lost."""
    if not can_create_hosts():
        pytest.skip("creating machines with their own networks needs root")
    with start_cluster(4) as cluster:
        for machine in cluster.machines:
            cluster.start(machine)
        args = ("--workers.count", 2, "--nodes", "true", "--faults", 3, "--out", "/tmp/runs", "--name", "drill")
        storage = cluster.shared / "storage"
        args += ("--model.name", "cnn", "--train.epochs", 12, "--storage", storage)
        cluster.submit("python", "jobs/drill.py", *args, name="drill")
        assert cluster.wait_for_end("drill", 500) == "SUCCEEDED", cluster.logs("drill")[-3000:]
        log = cluster.logs("drill")
        assert "node killed" in log
        assert "PASSED: 3 faults" in log
        ended = [name for name, node in cluster.nodes.items() if node.poll() is not None]
        assert len(ended) == 1
        assert ended != [cluster.head.name]
