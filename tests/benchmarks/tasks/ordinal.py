"""Ordered grades against classes without an order: python tests/benchmarks/tasks/ordinal.py [--images 600] [--seeds 5]

Fashion-MNIST's garments, tilted by up to 90 degrees or shrunk to a third, have grades 0 to 4 by their tilt or size and
noise of 0.7 grades, as two experts may differ. Both heads train on the same images with the same settings; each seed
draws other images, other noise and other weights. Two decisions are scored: the most likely grade, and the median.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classifier.config.experiment import Experiment
from classifier.config.sections import Task
from classifier.data.build import build_dataset
from classifier.data.dataset import Dataset
from classifier.data.readers.idx import read_idx
from classifier.data.readers.source import from_arrays
from classifier.inference.scorer import Scorer
from classifier.metrics.scores import compute_scores
from classifier.training.loop import fit
from classifier.training.resolve import resolve

GRADES, NOISE, TEST_IMAGES = 5, 0.7, 2000
HEADS: tuple[Task, ...] = ("multiclass", "ordinal")
SCORES = ("quadratic_kappa", "mean_absolute_error", "accuracy", "loss")
DATA = {"data.cache": None, "data.task": "ordinal", "data.validation": 0.0}
SETTINGS = {
    "model.name": "plain7_32",
    "augment.policy": "none",
    "train.keep": "last",
}

# The defaults, and those of the recipe for small images from scratch.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {
        "optimizer.name": "muon",
        "optimizer.lr": 0.03,
        "optimizer.momentum": 0.95,
        "optimizer.weight_decay": 0.0,
        "schedule.name": "linear",
        "loss.smoothing": 0.1,
    },
}


def draw(image_HW: np.ndarray, quantity: str, share: float) -> np.ndarray:
    """Tilt a garment by -90 to 90 degrees, or shrink it to a third and up to its own size."""
    image, side = Image.fromarray(image_HW), len(image_HW)
    if quantity == "tilt":
        return np.asarray(image.rotate(180 * share - 90, Image.Resampling.BILINEAR))
    size = round(side * (1 + 2 * share) / 3)
    small = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    canvas_HW, start = np.zeros_like(image_HW), (side - size) // 2
    canvas_HW[start : start + size, start : start + size] = small
    return canvas_HW


def make_dataset(garments_NHW: np.ndarray, quantity: str, images: int, seed: int) -> Dataset:
    """Draw training and test images of a quantity that is evenly spread, with their noisy grades."""
    rng, parts = np.random.default_rng(seed), {}
    for split, count in (("train", images), ("test", TEST_IMAGES)):
        shares_N, rows_N = rng.random(count), rng.integers(0, len(garments_NHW), count)
        images_NCHW = np.stack(
            [draw(garments_NHW[row], quantity, share)[None] for row, share in zip(rows_N, shares_N, strict=True)]
        )
        grades_N = (GRADES * shares_N + rng.normal(0, NOISE, count)).clip(0, GRADES - 1e-9).astype(np.int64)
        parts[split] = images_NCHW, grades_N
    source = from_arrays(quantity, parts, tuple(map(str, range(GRADES))), kind="objects")
    return build_dataset(source, Experiment().override_all(DATA).data)


def train(dataset: Dataset, optimizer: str, epochs: int, seed: int) -> Tensor:
    """Return probabilities_NK of the test images."""
    settings = SETTINGS | OPTIMIZERS[optimizer] | {"train.epochs": epochs, "seed": seed}
    experiment = resolve(Experiment().override_all(settings), dataset)
    *_, last = fit(experiment, dataset)
    scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
    return scorer.predict_split(last.model, dataset.test)[1]


def decide_by_median(probabilities_NK: Tensor) -> Tensor:
    """Return probabilities of which the median grade is the largest one."""
    medians_N = (probabilities_NK.cumsum(1) < 0.5).sum(1)
    return torch.nn.functional.one_hot(medians_N, GRADES).to(probabilities_NK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of Fashion-MNIST's files")
    parser.add_argument("--images", type=int, default=600, help="training images")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    garments_NHW = read_idx(Path(options.data)).images[:, 0]  # pyright: ignore[reportArgumentType, reportCallIssue]
    print(
        f"{options.images} training images, {TEST_IMAGES} test images, {options.epochs} epochs of {options.optimizer}"
    )
    for quantity in ("tilt", "size"):
        rows: dict[tuple[str, str], list[dict[str, float]]] = {}
        for seed in range(options.seeds):
            dataset = make_dataset(garments_NHW, quantity, options.images, seed)
            for head in HEADS:
                started = time.perf_counter()
                probabilities_NK = train(
                    dataclasses.replace(dataset, task=head), options.optimizer, options.epochs, seed
                )
                seconds = time.perf_counter() - started
                decisions = {"most likely": probabilities_NK, "median": decide_by_median(probabilities_NK)}
                for decision, decided_NK in decisions.items():
                    scores = compute_scores(decided_NK, dataset.test.labels_N, is_ordinal=True)
                    rows.setdefault((head, decision), []).append(scores | {"seconds": seconds})
        _print_table(quantity, rows)


def _print_table(quantity: str, rows: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    print(f"\n{quantity:24}" + "".join(f"{name:>24}" for name in (*SCORES, "seconds")))
    for (head, decision), runs in rows.items():
        cells = []
        for name in (*SCORES, "seconds"):
            values = [run[name] for run in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            is_known = name != "loss" or decision == "most likely"
            cells.append(f"{statistics.mean(values):.3f} ± {deviation:.3f}" if is_known else "")
        print(f"{head + ', ' + decision:24}" + "".join(f"{cell:>24}" for cell in cells))
    for name in SCORES:
        first, second = ([run[name] for run in rows[head, "most likely"]] for head in HEADS)
        gains = [b - a for a, b in zip(first, second, strict=True)]
        print(f"  {HEADS[1]} - {HEADS[0]}, {name}, seed by seed: {', '.join(f'{gain:+.3f}' for gain in gains)}")


if __name__ == "__main__":
    main()
