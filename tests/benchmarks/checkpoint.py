"""The cost of a checkpoint per minute: python tests/benchmarks/checkpoint.py [--minutes 4.3]

ResNet-50 with momentum on images of 32 pixels, with a checkpoint every minute on the local disk. A shared machine does
not keep its speed for long, so each checkpoint is compared with the second half of its own minute: the seconds of the
steps in the half minute after it, the copy to memory included, minus the seconds of as many undisturbed steps. Prints
the median over all checkpoints, as a share of a minute.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from PIL import Image

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import StepProgress, fit
from classifier.training.resolve import resolve

WRITE_SECONDS = 30.0
"""How long after a checkpoint it may still be being written."""


def write_images(folder: Path, count: int = 8192) -> Path:
    """Write so many that no epoch ends, with its validation, during the measurement."""
    rng = np.random.default_rng(0)
    for i in range(count):
        class_folder = folder / str(i % 4)
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(class_folder / f"{i}.png")
    return folder


def checkpoint_costs(experiment: Experiment, dataset: Dataset, folder: Path) -> list[float]:
    """Seconds that each checkpoint cost, except the last, which ends the run."""
    end_times: dict[int, float] = {}

    def on_step(step: StepProgress) -> None:
        end_times[step.step] = time.perf_counter()

    for _ in fit(experiment, dataset, store=CheckpointStore(folder, keep=1000), on_step=on_step):
        pass
    checkpoint_steps = sorted(int(path.parent.name.partition("-")[2]) for path in folder.glob("step-*/manifest.json"))
    costs = []
    for first, last in itertools.pairwise(checkpoint_steps):
        if end_times[last] - end_times[first] < 2 * WRITE_SECONDS:
            continue
        after = max(step for step in range(first, last) if end_times[step] < end_times[first] + WRITE_SECONDS)
        step_seconds = statistics.median(end_times[step + 1] - end_times[step] for step in range(after, last - 1))
        costs.append(end_times[after] - end_times[first] - (after - first) * step_seconds)
        print(f"step {first:>4}: {step_seconds:.3f} s per step, the checkpoint cost {costs[-1]:.2f} s", flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=4.3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        changes = {
            "data.path": str(write_images(out / "images")),
            "data.batch": 16,
            "model.name": "resnet50",
            "optimizer.name": "sgd",
            "optimizer.lr": 0.01,
            "train.epochs": 100_000,
            "checkpoint.epochs": 100_000,
            "train.minutes": args.minutes,
            "checkpoint.minutes": 1.0,
        }
        experiment = Experiment().override_all(changes)
        dataset = data.load(experiment.data)
        cost = statistics.median(checkpoint_costs(resolve(experiment, dataset), dataset, out / "checkpoints"))
        print(f"a checkpoint every minute costs {cost:.2f} s, {cost / 60:.1%} of the time")


if __name__ == "__main__":
    main()
