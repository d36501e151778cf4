"""A training beside other work: python tests/benchmarks/threads.py [FOLDER]

The recipe fashion-quick, by the command, on Fashion-MNIST in FOLDER (without one: on random images of the same shape):
alone, and beside busy processes; with the threads that it chooses, and with one for each core. In turns, in fresh
processes; a run during which yet other processes were at work is repeated a few times. Prints images per second, and
their ratio to those of the same call alone.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from classifier.runtime.cpu import OtherLoad

ROOT = Path(__file__).resolve().parent.parent.parent
CORES = len(os.sched_getaffinity(0))
LOADS = (0, 1, 2 * CORES)
ROUNDS, EPOCHS, IMAGES = 2, 2, 5_000
TRIES, MAX_OTHER_CORES = 4, 0.15


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_random(folder: Path) -> Path:
    """Random images in IDX files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("t10k", 100)):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for kind, rank, values in (("images-idx3", 3, images), ("labels-idx1", 1, labels)):
            header = bytes((0, 0, 8, rank)) + np.array(values.shape, ">i4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(header + values.astype("u1").tobytes())
    return folder


def train(data: Path, out: Path, *options: str) -> tuple[float, float, int]:
    """Train; images per second, seconds of the command, and its number of threads."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(data), "--recipe", "fashion-quick", "--name", "one"]
    command += ["--data.limit", str(IMAGES), "--train.epochs", str(EPOCHS), "--out", str(out), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    result = json.loads((out / "one" / "result.json").read_text())
    return result["images_per_second"], time.perf_counter() - began, result["config"]["train"]["threads"]


def train_undisturbed(load: int, data: Path, out: Path, *options: str) -> tuple[float, float, int, float]:
    """What `train` returns beside so many busy processes, and how many cores yet others kept busy, at best."""
    tries = []
    while not tries or (len(tries) < TRIES and tries[-1][3] > MAX_OTHER_CORES):
        other = OtherLoad()
        with busy_processes(load):
            tries.append((*train(data, out.with_name(f"{out.name}-{len(tries)}"), *options), other.busy_cores()))
    return min(tries, key=lambda one: one[3])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args().folder
    calls = {"chosen": (), "one for each core": ("--train.threads", str(CORES))}
    # One for each core beside as many busy processes as cores and more: takes minutes.
    measured = {(load, name): [] for load in LOADS for name in calls if load < CORES or name == "chosen"}
    with tempfile.TemporaryDirectory() as folder:
        data = given or write_random(Path(folder))
        train(data, Path(folder, "warm"))  # decodes the images
        for number in range(ROUNDS):
            for load, name in measured:
                out = Path(folder, f"{name}-{load}-{number}")
                measured[load, name].append(train_undisturbed(load, data, out, *calls[name]))
                print(f"{name}, beside {load}: {measured[load, name][-1]}", file=sys.stderr, flush=True)
    print(f"{CORES} cores, medians of {ROUNDS}  threads  images/s  of alone  seconds  other cores")
    for (load, name), runs in measured.items():
        speed, seconds, _, other = map(statistics.median, zip(*runs, strict=True))
        alone = statistics.median(run[0] for run in measured[0, name])
        threads = ",".join(sorted({str(run[2]) for run in runs}))
        beside = f"beside {load} busy" if load else "alone"
        print(f"{beside:<14} {name:<17} {threads:>7} {speed:9,.0f} {speed / alone:8.0%} {seconds:8.1f} {other:8.2f}")


if __name__ == "__main__":
    main()
