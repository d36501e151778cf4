"""What a checkpoint every minute costs: python tests/benchmarks/checkpoint.py [--minutes 4] [--times 2]

ResNet-50 with momentum on pictures of 64 pixels, in turns with checkpoints every minute on the local disk and without;
steps a second of each, validation and the last checkpoint left out, and their ratio.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from PIL import Image

from classifier import data
from classifier.checkpoint import Store
from classifier.config import Experiment
from classifier.data.dataset import Dataset
from classifier.fit import Step, fit
from classifier.resolve import resolve


def pictures(folder: Path, count: int = 512) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        home = folder / str(i % 4)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(home / f"{i}.png")
    return folder


def steps_per_second(experiment: Experiment, dataset: Dataset, folder: Path) -> tuple[float, int]:
    """Of the steps between the first and the last that are told; and how many checkpoints were written."""
    told: list[tuple[float, int]] = []

    def see(step: Step) -> None:
        told.append((time.perf_counter(), step.step))

    for _ in fit(experiment, dataset, store=Store(folder, keep=1000), on_step=see):
        pass
    (began, first), (ended, last) = told[2], told[-1]
    written = len(list(folder.glob("step-*/manifest.json"))) - 1  # the last one ends the run
    return (last - first) / (ended - began), written


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--times", type=int, default=2)
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
        }
        base = Experiment().override_all(changes)
        dataset = data.load(base.data)
        speeds: dict[str, list[float]] = {"without": [], "every minute": []}
        for turn in range(words.times):
            for name, minutes in (("without", None), ("every minute", 1.0)):
                experiment = resolve(base.override("checkpoint.minutes", minutes), dataset)
                speed, written = steps_per_second(experiment, dataset, out / f"{name}-{turn}")
                speeds[name].append(speed)
                print(f"checkpoints {name:<13} {speed:.3f} steps/s, {written} written", flush=True)
        without, every = (sum(found) / len(found) for found in speeds.values())
        print(f"ratio {without / every:.3f}: a checkpoint every minute costs {without / every - 1:.1%} of the time")


if __name__ == "__main__":
    main()
