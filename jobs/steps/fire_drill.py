"""A fire drill: a short training without interruption, and the same training killed and resumed again and again."""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.data.loader import steps_per_epoch
from classifier.errors import RunError
from classifier.storage.atomic import write_atomically
from classifier.storage.bucket import Storage
from classifier.training.resolve import resolve

from .compare_runs import Comparison
from .training_process import TrainingProcess

# The drill's training has at least this many steps per fault, at most this many per epoch, and this many epochs.
MIN_STEPS_PER_FAULT, MAX_STEPS_PER_EPOCH, MIN_EPOCHS = 12, 40, 3
NAMES = {"driver": "driver killed", "worker": "worker killed", "stop": "driver stopped", "node": "node killed"}
# Run folders of the two trainings.
UNINTERRUPTED, INTERRUPTED = "unbroken", "broken"


@dataclass(frozen=True)
class Drill:
    """What is trained, and where: the drill's folder, its experiment and its storage."""

    folder: Path
    experiment: Experiment
    storage: str | None
    kills_nodes: bool

    def describe(self) -> str:
        """The drill's training in one line."""
        experiment = self.experiment
        dataset, workers = data.load(experiment.data), experiment.workers.count
        return (
            f"{experiment.model.name} on {len(dataset.train):,} images of {dataset.name}, {experiment.train.epochs} "
            f"epochs, {total_steps(experiment, len(dataset.train))} steps, a checkpoint every "
            f"{experiment.checkpoint.steps}, on {workers} worker{'s' if workers > 1 else ''}"
        )

    @property
    def storage_uri(self) -> str:
        """The drill's own folder in the storage."""
        path, mark, query = (self.storage or "").partition("?")
        return f"{path.rstrip('/')}/{self.folder.name}{mark}{query}"

    def fault_kinds(self) -> list[str]:
        """The kinds of fault, which take turns."""
        if self.experiment.workers.count == 1:
            return ["driver", "stop"]
        return ["worker", "driver", "node"] if self.kills_nodes else ["worker", "driver"]

    def start(self, name: str) -> TrainingProcess:
        """Start the training in a run folder of this name."""
        options = ["--experiment", str(self.folder / "piece.yaml"), "--name", name]
        options += ["--storage", self.storage_uri] if self.storage else []
        return TrainingProcess.start(self.folder / name, *options, storage=self._storage_of(name))

    def resume(self, name: str) -> TrainingProcess:
        """Resume the training in that run folder."""
        return TrainingProcess.start(self.folder / name, "--resume", name, storage=self._storage_of(name))

    def _storage_of(self, name: str) -> Storage | None:
        return Storage.from_uri(self.storage_uri, name) if self.storage else None


@dataclass(frozen=True)
class Uninterrupted:
    """The uninterrupted training: seconds from start to end, and from the first checkpoint to the last."""

    seconds: float
    training_seconds: float
    steps: int


@dataclass(frozen=True)
class Fault:
    """One kill, and how long the training took to get past the checkpoint that it had before."""

    number: int
    kind: str
    step: int
    """The newest checkpoint when it was killed."""
    seconds: float

    def line(self) -> str:
        return (
            f"fault {self.number}: {NAMES[self.kind]} after step {self.step}; past that step again "
            f"{self.seconds:.1f} s later"
        )


def drill_experiment(experiment: Experiment, faults: int, changes: dict[str, Any]) -> Experiment:
    """The experiment cut to a few dozen steps, with checkpoints within its epochs. `changes` of the user stay."""
    dataset = data.load(experiment.data)
    batch = experiment.data.batch * experiment.optimizer.accumulate
    limit = experiment.data.limit
    max_images = max(MAX_STEPS_PER_EPOCH * batch, len(dataset.class_names))
    if "data.limit" not in changes and len(dataset.train) > max_images:
        limit = max_images
    images = limit or len(dataset.train)
    epochs = max(MIN_EPOCHS, -(-MIN_STEPS_PER_FAULT * faults // steps_per_epoch(images, batch)))
    shortened = experiment.override_all({"data.limit": limit, "train.epochs": changes.get("train.epochs", epochs)})
    every = max(1, total_steps(shortened, images) // (4 * faults))
    # The last weights are compared, and no time limit may end one training sooner than the other.
    fixed = {"checkpoint.steps": changes.get("checkpoint.steps", every), "checkpoint.minutes": None}
    fixed |= {"train.keep": "last", "train.minutes": None, "train.patience": None}
    shortened = shortened.override_all(fixed)
    resolved = resolve(shortened, data.load(shortened.data))  # raises what is wrong with it before anything starts
    if shortened.workers.count > 1:  # Ray sets their threads
        return shortened
    return shortened.override("train.threads", resolved.train.threads)  # each process would choose by its time's load


def total_steps(experiment: Experiment, images: int) -> int:
    batch = experiment.data.batch * experiment.optimizer.accumulate
    return experiment.train.epochs * steps_per_epoch(images, batch)


def train_uninterrupted(drill: Drill) -> Uninterrupted:
    """Train to the end."""
    write_atomically(drill.folder / "piece.yaml", dump_experiment(drill.experiment))
    steps = total_steps(drill.experiment, len(data.load(drill.experiment.data).train))
    began = time.monotonic()
    training = drill.start(UNINTERRUPTED)
    training.wait_for_step(1)
    first = time.monotonic()
    training.wait_for_step(steps)
    last = time.monotonic()
    training.wait()
    return Uninterrupted(time.monotonic() - began, last - first, steps)


def train_interrupted(drill: Drill, uninterrupted: Uninterrupted, faults: int) -> Iterator[Fault]:
    """Train again, killed at moments drawn from the experiment's seed; yields each fault once it is recovered from."""
    rng, kinds = random.Random(drill.experiment.seed), drill.fault_kinds()
    every = drill.experiment.checkpoint.steps or 1
    total = uninterrupted.steps
    # Not so late that the training is over before the kill arrives.
    steps = sorted(rng.sample(range(1, max(total - 2 * every, faults + 2)), faults))
    training = drill.start(INTERRUPTED)
    for number, step in enumerate(steps, start=1):
        kind = kinds[(number - 1) % len(kinds)]
        if not training.wait_for_step(step):
            if training.process.poll() == 0:
                raise RunError(f"the training ended before fault {number}: raise --train.epochs")
            training.wait()
        time.sleep(rng.uniform(0, every * uninterrupted.training_seconds / total))
        step_before, killed = training.newest_step(), time.monotonic()
        workers = len(training.workers())
        training.kill(kind, rng)
        if kind in ("driver", "stop"):
            training.process.wait()
            training = drill.resume(INTERRUPTED)
        if drill.experiment.workers.count > 1:
            training.wait_for_new_workers(workers)
            # Checkpoints that the other workers wrote before they were replaced are no recovery.
            step_before = max(step_before, training.newest_step())
        training.wait_for_step(min(step_before + 1, total))
        yield Fault(number, kind, step_before, time.monotonic() - killed)
    training.wait()


def conclude(faults: list[Fault], comparison: Comparison) -> str:
    """The drill's result in one line."""
    seconds = [fault.seconds for fault in faults]
    outcome, relation = ("PASSED", "equals") if comparison.is_equal else ("FAILED", "does not equal")
    return (
        f"{outcome}: {len(seconds)} fault{'s' if len(seconds) > 1 else ''}, and the interrupted training {relation} "
        f"the uninterrupted one; recovery took {statistics.median(seconds):.1f} s (median), "
        f"{max(seconds):.1f} s (worst)"
    )
