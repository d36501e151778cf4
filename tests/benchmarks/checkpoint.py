"""What a checkpoint every minute costs: python tests/benchmarks/checkpoint.py [--minutes 4.3]

ResNet-50 with momentum on pictures of 32 pixels, with a checkpoint every minute on the local disk. Each is compared
with the calm half of its own minute, since a machine that others use too is not equally fast for long: the seconds that
the steps in the half minute after it take, the copy to memory among them, less what as many calm steps take. The median
of all checkpoints, as a part of a minute.
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

AFTER = 30.0
"""Seconds after a checkpoint in which it may still be written."""


def pictures(folder: Path, count: int = 8192) -> Path:
    """So many that no epoch ends, and none is validated, while it is measured."""
    rng = np.random.default_rng(0)
    for i in range(count):
        home = folder / str(i % 4)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(home / f"{i}.png")
    return folder


def extras(experiment: Experiment, dataset: Dataset, folder: Path) -> list[float]:
    """Seconds that each checkpoint cost, but for the last one, which ends the run."""
    ends: dict[int, float] = {}

    def see(step: StepProgress) -> None:
        ends[step.step] = time.perf_counter()

    for _ in fit(experiment, dataset, store=CheckpointStore(folder, keep=1000), on_step=see):
        pass
    saved = sorted(int(path.parent.name.partition("-")[2]) for path in folder.glob("step-*/manifest.json"))
    found = []
    for first, last in itertools.pairwise(saved):
        if ends[last] - ends[first] < 2 * AFTER:
            continue
        after = max(step for step in range(first, last) if ends[step] < ends[first] + AFTER)
        calm = statistics.median(ends[step + 1] - ends[step] for step in range(after, last - 1))
        found.append(ends[after] - ends[first] - (after - first) * calm)
        print(f"step {first:>4}: a calm step takes {calm:.3f} s, the checkpoint cost {found[-1]:.2f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=4.3)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        changes = {
            "data.path": str(pictures(out / "pictures")),
            "data.batch": 16,
            "model.name": "resnet50",
            "optimizer.name": "sgd",
            "optimizer.lr": 0.01,
            "train.epochs": 100_000,
            "checkpoint.epochs": 100_000,
            "train.minutes": words.minutes,
            "checkpoint.minutes": 1.0,
        }
        experiment = Experiment().override_all(changes)
        dataset = data.load(experiment.data)
        cost = statistics.median(extras(resolve(experiment, dataset), dataset, out / "checkpoints"))
        print(f"a checkpoint every minute costs {cost:.2f} s, {cost / 60:.1%} of the time")


if __name__ == "__main__":
    main()
