"""Two workers against one process, by torchrun and by Ray: python tests/benchmarks/workers.py [--data PATH] [--times 4]

All three have the same cores and train the same epochs, in turns. An epoch lasts from the end of the one before to its
own, validation and checkpoints included: so the first one, and all that starts, is told apart. What else a machine does
makes epochs longer, never shorter, and not alike for all three: so it is the lower quartile of a way's epochs, of all
turns, that is compared.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent.parent
TRAIN = str(ROOT / "jobs" / "train.py")
WAYS = {
    "one process": [sys.executable, TRAIN],
    "torchrun": [str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node", "2", TRAIN],
    "Ray": [sys.executable, TRAIN, "--workers.count", "2"],
}


def pictures(folder: Path, count: int = 4000) -> Path:
    """Noise of 28 x 28 in ten classes, as a folder of class folders."""
    rng = np.random.default_rng(0)
    for i in range(count):
        home = folder / str(i % 10)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(home / f"{i}.png")
    return folder


def epochs_of(way: str, data: str, out: Path, epochs: int) -> tuple[list[float], float]:
    """Images a second of each epoch after the first; and seconds until the first one's end."""
    name = f"{way.replace(' ', '-')}-{time.time_ns()}"
    words = ["--data.path", data, "--train.epochs", epochs, "--model.name", "resnet9_16", "--data.batch", 128]
    words += ["--train.precision", "fp32", "--out", out, "--name", name]
    began = time.time()
    done = subprocess.run([*WAYS[way], *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way} failed: {done.stderr[-2000:]}")
    events = EventAccumulator(str(out / name / "tensorboard")).Reload().Scalars("train/loss")
    counts = json.loads((out / name / "result.json").read_text())["dataset"]["counts"]
    speeds = [counts["train"] / (b.wall_time - a.wall_time) for a, b in itertools.pairwise(events)]
    return speeds, events[0].wall_time - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a data set; not set: noise")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--times", type=int, default=4)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        data = words.data or str(pictures(out / "pictures"))
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(words.times):
            for way in WAYS:
                speeds, first = epochs_of(way, data, out, words.epochs)
                found[way] += speeds
                speed = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
                print(f"{way:<12} {speed} images/s, the first epoch ends after {first:.1f} s", flush=True)
        one, launched, ray = (float(np.quantile(found[way], 0.75)) for way in WAYS)
        print(f"images/s: one process {one:,.0f}, torchrun {launched:,.0f}, Ray {ray:,.0f}")
        print(f"two workers of Ray / one process {ray / one:.3f}; Ray / torchrun {ray / launched:.3f}")


if __name__ == "__main__":
    main()
