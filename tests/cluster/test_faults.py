"""Slow: a training on two machines of a cluster lives through more than twenty faults, and equals the unbroken one.

What is killed is killed by the kernel: a worker, a machine's Ray process, a whole machine, the driver; a network cable
is pulled for a minute, a disk is filled, the head dies and comes back. Each fault is asserted to have happened, and is
over once a newer checkpoint lies in storage. A table of them is printed (pytest -s).
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

from tests.cluster.conftest import Cluster, cluster_of
from tests.cluster.hosts import Host, can_be_made, wait_for

pytestmark = pytest.mark.slow
# About a minute of steps on one core a machine; an epoch has 21.
SETTINGS = ("--model.name", "resnet9_16", "--train.epochs", 120, "--data.batch", 64, "--checkpoint.steps", 20)
SETTINGS += ("--train.keep", "last", "--workers.count", 2, "--out", "/tmp/runs")
CUT_SECONDS, FULL_SECONDS, SILENT_SECONDS = 60, 20, 60


@dataclass
class Drama:
    """One training under faults, and what each of them cost."""

    cluster: Cluster
    name: str
    rng: random.Random
    costs: dict[str, list[float]] = field(default_factory=dict)
    jobs: int = 0

    @property
    def place(self):
        return self.cluster.shared / "storage" / self.name

    def step(self) -> int:
        steps = [int(path.parent.name.removeprefix("step-")) for path in self.place.glob("checkpoints/*/manifest.json")]
        return max(steps, default=-1)

    def submit(self, *words: object) -> None:
        self.jobs += 1
        storage = ("--storage", self.cluster.shared / "storage")
        self.cluster.submit("python", "jobs/train.py", *words, *storage, name=f"{self.name}-{self.jobs}")

    @property
    def job(self) -> str:
        return f"{self.name}-{self.jobs}"

    def go_on(self, seconds: float = 240) -> None:
        """Until a newer checkpoint is there than now."""
        at = self.step()
        began = time.monotonic()
        while self.step() <= at:
            status = self.cluster.status(self.job)
            ok = status in ("RUNNING", "PENDING", "UNKNOWN") and time.monotonic() - began < seconds
            assert ok, f"{self.job} is {status}, no step after {at}: {self.cluster.logs(self.job)[-3000:]}"
            time.sleep(0.2)

    def fault(self, kind: str, strike) -> None:
        """Strike at a moment drawn by the seed, and wait until the training has got further than it was."""
        self.go_on()
        time.sleep(self.rng.uniform(0, 3))
        began = time.monotonic()
        strike()
        self.go_on()
        self.costs.setdefault(kind, []).append(time.monotonic() - began)

    def workers(self) -> list[tuple[Host, int]]:
        """The processes that train, with their machines."""
        return [(m, pid) for m in self.cluster.machines[1:] for pid in m.processes("ray::RayTrainWorker")]


def kill_worker(drama: Drama) -> None:
    machine, pid = drama.rng.choice(drama.workers())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in machine.processes(""), 10, "its end")


def kill_node(drama: Drama) -> None:
    """Its Ray process dies, and all that it runs; a moment later it is started again."""
    cluster, machine = drama.cluster, drama.rng.choice(drama.cluster.machines[1:])
    raylets = machine.processes("raylet/raylet")
    assert raylets
    for pid in raylets:
        os.kill(pid, signal.SIGKILL)
    cluster.nodes[machine.name].wait(timeout=60)
    wait_for(lambda: machine.address not in cluster.living(), 120, "the news of its death")
    cluster.start(machine)


def power_cut(drama: Drama) -> None:
    cluster, machine = drama.cluster, drama.rng.choice(drama.cluster.machines[1:])
    machine.power_off()
    cluster.nodes[machine.name].wait(timeout=60)
    wait_for(lambda: machine.address not in cluster.living(), 120, "the news of its death")
    machine.power_on()
    cluster.start(machine)


def cut_network(drama: Drama) -> None:
    cluster, machine = drama.cluster, drama.rng.choice(drama.cluster.machines[1:])
    machine.cut_off(away=True)
    began = time.monotonic()
    wait_for(lambda: machine.address not in cluster.living(), CUT_SECONDS, "the news that it is away")
    time.sleep(max(0.0, CUT_SECONDS - (time.monotonic() - began)))
    machine.cut_off(away=False)
    # Ray ends a node that was declared dead, as it hears of it; its keeper starts it again.
    cluster.nodes[machine.name].wait(timeout=120)
    cluster.start(machine)


def kill_driver(drama: Drama) -> None:
    drivers = drama.cluster.head.processes("jobs/train.py")
    assert drivers
    for pid in drivers:
        os.kill(pid, signal.SIGKILL)
    assert drama.cluster.ended(drama.job) == "FAILED"
    drama.submit("--resume", drama.name, "--out", f"/tmp/runs{drama.jobs}")


def fill_disk(drama: Drama) -> None:
    """Of the machine that writes the checkpoints, for a while."""
    machine = next(m for m in drama.cluster.machines[1:] if list_of(m, "/tmp/classifier"))
    done = machine.run("sh", "-c", "cat /dev/zero > /tmp/full; df --output=avail /tmp | tail -1")
    assert int(done.stdout) < 1000
    time.sleep(FULL_SECONDS)
    machine.run("rm", "/tmp/full")


def list_of(machine: Host, path: str) -> list[str]:
    return machine.run("sh", "-c", f"ls {path}/*/checkpoints").stdout.split()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if not can_be_made():
        pytest.skip("machines of their own networks need root")
    with cluster_of(3) as made:
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
        for machine in made.machines:
            made.start(machine, quick)
        yield made


def assert_equal(cluster: Cluster, name: str) -> None:
    """Weights bit for bit, and each epoch's figures and order."""
    one, other = (cluster.shared / "storage" / one for one in ("calm", name))
    a, b = (load_file(place / "bundle" / "model.safetensors") for place in (one, other))
    assert all((a[key] == b[key]).all() for key in a)
    rows = [[json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()] for place in (one, other)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"], row["input_wait"]
    assert rows[0] == rows[1]


def told(costs: dict[str, list[float]]) -> None:
    print(f"\n{'fault':<28} {'times':>5} {'median':>8} {'worst':>8}")
    for kind, seconds in costs.items():
        print(f"{kind:<28} {len(seconds):>5} {statistics.median(seconds):>6.0f} s {max(seconds):>6.0f} s")


def test_twenty_faults(cluster: Cluster):
    calm = Drama(cluster, "calm", random.Random(0))
    calm.submit(*SETTINGS, "--name", "calm")
    assert cluster.ended(calm.job, 600) == "SUCCEEDED", cluster.logs(calm.job)
    drama = Drama(cluster, "hurt", random.Random(1))
    drama.submit(*SETTINGS, "--name", "hurt")
    acts = (
        [("worker killed", kill_worker)] * 6 + [("node killed", kill_node)] * 4 + [("driver killed", kill_driver)] * 4
    )
    acts += [("power cut", power_cut)] * 2 + [("network cut for a minute", cut_network)] * 2
    acts += [("disk full for 20 s", fill_disk)] * 2
    drama.rng.shuffle(acts)
    for kind, strike in acts:
        drama.fault(kind, lambda strike=strike: strike(drama))
    assert sum(map(len, drama.costs.values())) == 20
    assert cluster.ended(drama.job, 600) == "SUCCEEDED", cluster.logs(drama.job)
    assert_equal(cluster, "hurt")
    told(drama.costs)


def test_the_head_dies_and_comes_back():
    """Its state is in Redis, on a machine of its own: the nodes stay, and the job is submitted again."""
    if not can_be_made() or shutil.which("redis-server") is None:
        pytest.skip("needs root, and redis-server")
    with cluster_of(4) as cluster:
        keeper = cluster.machines.pop()
        words = ("redis-server", "--bind", keeper.address, "--protected-mode", "no", "--save", "")
        redis = keeper.start(*words, log=cluster.home / "redis.log")
        state = {"RAY_REDIS_ADDRESS": f"{keeper.address}:6379"}
        for machine in cluster.machines:
            cluster.start(machine, state)
        drama = Drama(cluster, "headless", random.Random(2))
        drama.submit(*SETTINGS, "--name", "headless")
        drama.go_on()
        raylets = [pid for machine in cluster.machines[1:] for pid in machine.processes("raylet/raylet")]
        began = time.monotonic()
        cluster.head.power_off()
        cluster.nodes[cluster.head.name].wait(timeout=60)
        cluster.head.power_on()
        cluster.start(cluster.head, state)
        wait_for(lambda: len(cluster.living()) == 3, 120, "the nodes' return")
        assert [pid for machine in cluster.machines[1:] for pid in machine.processes("raylet/raylet")] == raylets
        drama.submit("--resume", "headless", "--out", "/tmp/again")
        drama.go_on()
        told({"head killed, job submitted again": [time.monotonic() - began]})
        assert cluster.ended(drama.job, 600) == "SUCCEEDED", cluster.logs(drama.job)
        rows = [json.loads(line) for line in (drama.place / "history.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, 121))
        keeper.power_off()
        redis.wait(timeout=30)


def test_fewer_machines_go_on_and_more_come_back(cluster: Cluster):
    """workers.min: a lost machine is not waited for; when it is back, the group grows again."""
    drama = Drama(cluster, "elastic", random.Random(3))
    drama.submit(*SETTINGS, "--name", "elastic", "--workers.min", 1, "--train.epochs", 400)
    drama.go_on()
    machine = cluster.machines[2]
    machine.power_off()
    cluster.nodes[machine.name].wait(timeout=60)
    drama.go_on()
    assert len(drama.workers()) == 1
    machine.power_on()
    cluster.start(machine)
    wait_for(lambda: len(drama.workers()) == 2, 180, "the second worker's return")
    drama.go_on()
    cluster.ray("job", "stop", drama.job)
    assert cluster.ended(drama.job) == "STOPPED"
    rows = [json.loads(line) for line in (drama.place / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


def test_a_node_that_is_taken_away_is_told_and_saves_first(cluster: Cluster):
    """No other checkpoint is due: the one that is there was written for the notice (Kubernetes gives it by preStop)."""
    drama = Drama(cluster, "taken", random.Random(4))
    rare = ("--checkpoint.steps", 10**6, "--checkpoint.minutes", "none", "--checkpoint.epochs", 10**6)
    drama.submit(*SETTINGS, *rare, "--train.epochs", 2000, "--name", "taken", "--workers.min", 1)
    wait_for(lambda: (drama.place / "history.jsonl").exists(), 120, "the first epoch")
    assert drama.step() == -1
    machine = cluster.machines[2]
    notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
    notice += ("--deadline-remaining-seconds", 30)
    where = ("--address", f"{cluster.head.address}:6379")
    done = machine.run(cluster.python, "-m", "ray.scripts.scripts", "drain-node", *where, *notice)
    assert done.returncode == 0, done.stdout + done.stderr
    began = time.monotonic()
    wait_for(lambda: drama.step() > 0, 25, "the checkpoint before the deadline")
    told({"notice to checkpoint": [time.monotonic() - began]})
    wait_for(lambda: len(drama.workers()) == 1, 120, "the smaller group")
    lines = len((drama.place / "history.jsonl").read_text().splitlines())
    wait_for(lambda: len((drama.place / "history.jsonl").read_text().splitlines()) > lines, 120, "its next epoch")
    cluster.ray("job", "stop", drama.job)
    assert cluster.ended(drama.job) == "STOPPED"


def test_the_drill_kills_a_node_and_passes():
    """A third machine takes the place of the one that is lost."""
    if not can_be_made():
        pytest.skip("machines of their own networks need root")
    with cluster_of(4) as cluster:
        for machine in cluster.machines:
            cluster.start(machine)
        words = ("--workers.count", 2, "--nodes", "true", "--faults", 3, "--out", "/tmp/runs", "--name", "drill")
        storage = cluster.shared / "storage"
        words += ("--model.name", "cnn", "--train.epochs", 12, "--storage", storage)
        cluster.submit("python", "jobs/drill.py", *words, name="drill")
        assert cluster.ended("drill", 500) == "SUCCEEDED", cluster.logs("drill")[-3000:]
        said = cluster.logs("drill")
        assert "node killed" in said
        assert "PASSED: 3 faults" in said
        ended = [name for name, node in cluster.nodes.items() if node.poll() is not None]
        assert len(ended) == 1
        assert ended != [cluster.head.name]
