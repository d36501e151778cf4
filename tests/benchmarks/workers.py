"""Two workers against one process, by torchrun and by Ray: python tests/benchmarks/workers.py [--data PATH] [--times 4]

All three have the same cores and train the same epochs, in turns. An epoch is timed from the end of the previous one to
its own end, with validation and checkpoints; the first, which includes start-up, is reported separately. Other load
only makes epochs longer, and hits the three differently, so the lower quartile of each one's epochs, over all turns, is
compared.
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
LAUNCHERS = {
    "one process": [sys.executable, TRAIN],
    "torchrun": [str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node", "2", TRAIN],
    "Ray": [sys.executable, TRAIN, "--workers.count", "2"],
}


def write_images(folder: Path, count: int = 4000) -> Path:
    """Write random images of 28 x 28 pixels in ten class folders."""
    rng = np.random.default_rng(0)
    for i in range(count):
        class_folder = folder / str(i % 10)
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(class_folder / f"{i}.png")
    return folder


def measure_epochs(launcher: str, data: str, out: Path, epochs: int) -> tuple[list[float], float]:
    """Images per second of each epoch after the first, and seconds until the end of the first."""
    name = f"{launcher.replace(' ', '-')}-{time.time_ns()}"
    words = ["--data.path", data, "--train.epochs", epochs, "--model.name", "resnet9_16", "--data.batch", 128]
    words += ["--train.precision", "fp32", "--out", out, "--name", name]
    start = time.time()
    done = subprocess.run([*LAUNCHERS[launcher], *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{launcher} failed: {done.stderr[-2000:]}")
    events = EventAccumulator(str(out / name / "tensorboard")).Reload().Scalars("train/loss")
    counts = json.loads((out / name / "result.json").read_text())["dataset"]["counts"]
    speeds = [counts["train"] / (b.wall_time - a.wall_time) for a, b in itertools.pairwise(events)]
    return speeds, events[0].wall_time - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a data set; default: random images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--times", type=int, default=4)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        data = words.data or str(write_images(out / "images"))
        speeds_by_launcher: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
        for _ in range(words.times):
            for launcher in LAUNCHERS:
                speeds, first = measure_epochs(launcher, data, out, words.epochs)
                speeds_by_launcher[launcher] += speeds
                speed = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
                print(f"{launcher:<12} {speed} images/s, the first epoch ends after {first:.1f} s", flush=True)
        one, launched, ray = (float(np.quantile(speeds_by_launcher[launcher], 0.75)) for launcher in LAUNCHERS)
        print(f"images/s: one process {one:,.0f}, torchrun {launched:,.0f}, Ray {ray:,.0f}")
        print(f"two workers of Ray / one process {ray / one:.3f}; Ray / torchrun {ray / launched:.3f}")


if __name__ == "__main__":
    main()
