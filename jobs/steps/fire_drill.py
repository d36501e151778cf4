"""The two trainings of a fire drill: how they are killed, when they were where they had been, and how they compare."""

import dataclasses
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from safetensors.torch import load_file

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.data.loader import steps_per_epoch
from classifier.errors import RunError
from classifier.runs.folder import read_history
from classifier.storage.atomic import write_atomically
from classifier.storage.bucket import Storage
from classifier.training.resolve import resolve
from jobs.cli.environment import VERBS
from jobs.launch import run_storage

# A piece has at least so many steps for each fault, and at most so many an epoch.
STEPS_A_FAULT, STEPS_AN_EPOCH, EPOCHS = 12, 40, 3
# A training that makes no step for so long hangs, in seconds.
PATIENCE = 300.0
CLOCK = ("seconds", "images_per_second", "input_wait")
TRAIN = VERBS / "train.py"
NAMES = {"driver": "driver killed", "worker": "worker killed", "stop": "driver stopped", "node": "node killed"}


@dataclass(frozen=True)
class Setting:
    """Where the drill takes place, and what is trained in it."""

    folder: Path
    piece: Experiment
    storage: str | None
    kills_nodes: bool

    def lines(self) -> Iterator[str]:
        piece = self.piece
        dataset, workers = data.load(piece.data), piece.workers.count
        steps = total_steps(piece, len(dataset.train))
        yield (
            f"the piece: {piece.model.name} on {len(dataset.train):,} images of {dataset.name}, "
            f"{piece.train.epochs} epochs, {steps} steps, a checkpoint every {piece.checkpoint.steps}, on {workers} "
            f"worker{'s' if workers > 1 else ''}"
        )

    @property
    def place(self) -> str:
        """The drill's own folder in the storage."""
        path, mark, query = (self.storage or "").partition("?")
        return f"{path.rstrip('/')}/{self.folder.name}{mark}{query}"

    def kinds(self) -> list[str]:
        """The faults, which take turns."""
        if self.piece.workers.count == 1:
            return ["driver", "stop"]
        return ["worker", "driver", "node"] if self.kills_nodes else ["worker", "driver"]

    def begin(self, name: str, *, resumed: bool = False) -> "Training":
        """Start `train.py` on the piece, or take it up again."""
        where = ["--out", str(self.folder)] + (["--storage", self.place] if self.storage and not resumed else [])
        how = ["--resume", name] if resumed else ["--experiment", str(self.folder / "piece.yaml"), "--name", name]
        storage = Storage.from_uri(self.place, name) if self.storage else None
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen([sys.executable, str(TRAIN), *how, *where], stdout=log, stderr=log)
        return Training(self.folder / name, process, storage)


@dataclass(frozen=True)
class Training:
    """A training in a process of its own, seen from outside."""

    folder: Path
    process: subprocess.Popen
    storage: Storage | None

    def step(self) -> int:
        """The step of its newest checkpoint; -1 before the first."""
        if self.storage is not None:
            try:
                return self.storage.newest_step()
            except OSError:
                return -1
        places = self.folder.glob("checkpoints/*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in places), default=-1)

    def wait_for(self, step: int) -> bool:
        """Until a checkpoint of that step or a later one is there; false if the training ended before. RunError if
        nothing moves any more."""
        last, moved = self.step(), time.monotonic()
        while last < step:
            if self.process.poll() is not None:
                return self.step() >= step
            now = self.step()
            if now > last:
                last, moved = now, time.monotonic()
            if time.monotonic() - moved > PATIENCE:
                self.process.kill()
                raise RunError(f"{self.folder} made no step for {PATIENCE:.0f} s: its log is {self.folder}.log")
            time.sleep(0.005 if self.storage is None else 0.2)
        return True

    def workers(self) -> list[tuple[str, int, str, str]]:
        """Rank, process, node and machine of each of Ray's workers that ever began, the newest last."""
        log = self.folder / ("run.log" if self.storage is None else run_storage.WORKER_LOG)
        there = self.storage.read(run_storage.WORKER_LOG) if self.storage is not None else None
        text = there.decode() if there is not None else log.read_text() if log.exists() else ""
        return [(rank, int(pid), node, host) for rank, pid, node, host in WORKER.findall(text)]

    def wait_for_workers(self, born: int) -> None:
        """Until others began than those that ever had, or the training ended. RunError if none comes."""
        began = time.monotonic()
        while len(self.workers()) == born and self.process.poll() is None:
            if time.monotonic() - began > PATIENCE:
                self.process.kill()
                raise RunError(f"no worker took the place of a killed one for {PATIENCE:.0f} s: see {self.folder}.log")
            time.sleep(0.05)

    def end(self) -> None:
        """Wait for a good end. RunError with the last line of its log otherwise."""
        code = self.process.wait()
        if code != 0:
            said = Path(f"{self.folder}.log").read_text().strip().rpartition("\n")[2]
            raise RunError(f"the training in {self.folder} failed (exit code {code}): {said}")


@dataclass(frozen=True)
class Calm:
    """The unbroken training: seconds from start to end, and from the first checkpoint to the last."""

    seconds: float
    training_seconds: float
    steps: int


@dataclass(frozen=True)
class Fault:
    """One kill: at which step, from which checkpoint it went on, and how long until it was there again."""

    number: int
    kind: str
    step: int
    """The newest checkpoint when it was killed."""
    seconds: float

    def line(self) -> str:
        return (
            f"fault {self.number}: {NAMES[self.kind]} past step {self.step}; further than that again after "
            f"{self.seconds:.1f} s"
        )


def piece_of(experiment: Experiment, faults: int, chosen: dict[str, Any]) -> Experiment:
    """A few dozen steps of the experiment, with checkpoints inside its epochs; what the user chose stays."""
    dataset = data.load(experiment.data)
    batch = experiment.data.batch * experiment.optimizer.accumulate
    limit = experiment.data.limit
    most = max(STEPS_AN_EPOCH * batch, len(dataset.class_names))
    if "data.limit" not in chosen and len(dataset.train) > most:
        limit = most
    count = limit or len(dataset.train)
    epochs = max(EPOCHS, -(-STEPS_A_FAULT * faults // steps_per_epoch(count, batch)))
    changes = {"data.limit": limit, "train.epochs": chosen.get("train.epochs", epochs)}
    piece = experiment.override_all(changes)
    every = max(1, total_steps(piece, count) // (4 * faults))
    # The last weights are compared, and no clock may end the one training sooner than the other.
    fixed = {"checkpoint.steps": chosen.get("checkpoint.steps", every), "checkpoint.minutes": None}
    fixed |= {"train.keep": "last", "train.minutes": None, "train.patience": None}
    piece = piece.override_all(fixed)
    resolve(piece, data.load(piece.data))  # a mistake is told before anything starts
    return piece


def total_steps(piece: Experiment, count: int) -> int:
    return piece.train.epochs * steps_per_epoch(count, piece.data.batch * piece.optimizer.accumulate)


def unbroken(setting: Setting) -> Calm:
    """Train the piece to its end."""
    write_atomically(setting.folder / "piece.yaml", dump_experiment(setting.piece))
    steps = total_steps(setting.piece, len(data.load(setting.piece.data).train))
    began = time.monotonic()
    training = setting.begin("unbroken")
    training.wait_for(1)
    first = time.monotonic()
    training.wait_for(steps)
    last = time.monotonic()
    training.end()
    return Calm(time.monotonic() - began, last - first, steps)


def broken(setting: Setting, calm: Calm, faults: int) -> Iterator[Fault]:
    """Train the piece again, killed at moments that the experiment's seed draws; a Fault when it has recovered."""
    rng, kinds = random.Random(setting.piece.seed), setting.kinds()
    every = setting.piece.checkpoint.steps or 1
    # Not so late that the training is over before the kill arrives.
    steps = sorted(rng.sample(range(1, max(calm.steps - 2 * every, faults + 2)), faults))
    training = setting.begin("broken")
    for number, step in enumerate(steps, start=1):
        kind = kinds[(number - 1) % len(kinds)]
        if not training.wait_for(step):
            if training.process.poll() == 0:
                raise RunError(f"the training was over before fault {number}: give it more --train.epochs")
            training.end()
        time.sleep(rng.uniform(0, every * calm.training_seconds / calm.steps))
        at, struck = training.step(), time.monotonic()
        born = len(training.workers())
        strike(training, kind, rng)
        if kind in ("driver", "stop"):
            training.process.wait()
            training = setting.begin("broken", resumed=True)
        if setting.piece.workers.count > 1:
            training.wait_for_workers(born)
            # What the others still did before they were replaced is not what was recovered.
            at = max(at, training.step())
        training.wait_for(min(at + 1, calm.steps))
        yield Fault(number, kind, at, time.monotonic() - struck)
    training.end()


def strike(training: Training, kind: str, rng: random.Random) -> None:
    """Kill what the fault is about. RunError if it cannot be found."""
    if kind == "driver":
        training.process.send_signal(signal.SIGKILL)
    elif kind == "stop":
        training.process.send_signal(signal.SIGTERM)
    else:
        # The newest line of each worker is the one that lives.
        living = {rank: (pid, node, host) for rank, pid, node, host in training.workers()}
        if kind == "node":  # this one would take the drill with it
            living = {rank: where for rank, where in living.items() if where[2] != socket.gethostname()}
        if not living:
            where = " on another node" if kind == "node" else ""
            raise RunError(f"the log of {training.folder} names no worker that may be killed{where}")
        pid, node, host = living[rng.choice(sorted(living))]
        if kind == "worker" and host == socket.gethostname():
            os.kill(pid, signal.SIGKILL)
        else:
            from jobs.launch.cluster import kill_on_node

            kill_on_node(node, None if kind == "node" else pid)


# What a worker says of itself as it begins (jobs/launch/workers.py).
WORKER = re.compile(r"worker (\d+): process (\d+) on node (\w+) of (\S+)")


@dataclass(frozen=True)
class Verdict:
    """What the drill proved: how many of the weights, epochs' orders and lines of figures are equal."""

    faults: list[Fault]
    weights: int
    equal_weights: int
    largest_difference: float
    epochs: int
    equal_orders: int
    equal_figures: int

    @property
    def passed(self) -> bool:
        return self.weights == self.equal_weights and self.epochs == self.equal_orders == self.equal_figures

    def told(self) -> Iterator[Any]:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, equal, count, what in (
            ("weights", self.equal_weights, self.weights, "numbers, bit for bit"),
            ("order", self.equal_orders, self.epochs, "epochs, each image in its place and once"),
            ("figures", self.equal_figures, self.epochs, "lines of history.jsonl, but for the clock"),
        ):
            table.add_row("equal" if equal == count else "DIFFERENT", name, f"{equal:,} of {count:,} {what}")
        yield table
        if self.equal_weights < self.weights:
            yield f"the largest difference of a weight is {self.largest_difference:.3g}"
        seconds = [fault.seconds for fault in self.faults]
        yield (
            f"{'PASSED' if self.passed else 'FAILED'}: {len(seconds)} faults, and the training that had them "
            f"{'equals' if self.passed else 'does not equal'} the unbroken one; a fault cost "
            f"{statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (worst)"
        )

    def plain(self) -> dict[str, Any]:
        """For result.json."""
        return {"passed": self.passed} | dataclasses.asdict(self)


def compared(setting: Setting, faults: list[Fault]) -> Verdict:
    """Both trainings, number by number."""
    one, other = (setting.folder / name for name in ("unbroken", "broken"))
    a, b = (load_file(folder / "bundle" / "model.safetensors") for folder in (one, other))
    pairs = [(a[name], b[name]) for name in a]
    same = sum(int((x == y).sum()) if x.shape == y.shape else 0 for x, y in pairs)
    furthest = max(float((x.double() - y.double()).abs().max()) for x, y in pairs if x.numel())
    rows = list(zip(read_history(one), read_history(other), strict=True))
    return Verdict(
        faults=faults,
        weights=sum(x.numel() for x, _ in pairs),
        equal_weights=same,
        largest_difference=furthest,
        epochs=len(rows),
        equal_orders=sum(x["order"] == y["order"] for x, y in rows),
        equal_figures=sum(all(x[name] == y[name] for name in x.keys() - set(CLOCK)) for x, y in rows),
    )
