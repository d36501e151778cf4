"""From files to a model's input, against torchvision: python tests/benchmarks/data.py [small|photos ...]

Both make the same kind of batch (random crop and flip, normalised float32) from the same files, in turns, in one run:
torchvision's ImageFolder with Pillow transforms and a DataLoader, at its best worker count; and `data.load` with its
cache, the loader and the batched augmentation. The first epoch starts without a cache, later ones have it. Libraries
are warm on both sides. Reports the median over rounds, and for comparison the limits of the machine: JPEG decoding
alone on one core, and copying memory.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from classifier import data
from classifier.augment import policy
from classifier.config.sections import AugmentConfig, DataConfig
from classifier.data import loader
from classifier.runtime import counter_rng, cpu

BATCH, WORKERS = 128, (0, 1, 2, 3)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def photographs_of_skimage() -> list[np.ndarray]:
    """Photographs that come with scikit-image."""
    from skimage import data as photographs

    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
    return [np.asarray(getattr(photographs, name)())[..., :3] for name in names]


def write_crops(folder: Path, count: int, width: int, height: int, suffix: str, quality: int = 90) -> Path:
    """Write seeded crops of the photographs, each at its own position and scale, as files of two classes."""
    rng, photographs = np.random.default_rng(0), [Image.fromarray(array) for array in photographs_of_skimage()]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        share = rng.uniform(0.3, 0.9)
        crop_width, crop_height = int(photograph.width * share), int(photograph.width * share * height / width)
        crop_height = min(crop_height, photograph.height)
        left = int(rng.integers(0, photograph.width - crop_width + 1))
        top = int(rng.integers(0, photograph.height - crop_height + 1))
        box = (left, top, left + crop_width, top + crop_height)
        crop = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
        class_folder = folder / "train" / "ab"[number % 2]
        class_folder.mkdir(parents=True, exist_ok=True)
        crop.save(class_folder / f"{number:06d}.{suffix}", quality=quality)
    return folder


def measure_torchvision(folder: Path, crop_transforms: list, workers: int, epochs: int) -> list[float]:
    """Images per second of each epoch, start-up of the workers included."""
    steps: list = [
        *crop_transforms,
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    dataset = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    batches = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=False
    )
    speeds = []
    for _ in range(epochs):
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in batches)
        speeds.append(count / (time.perf_counter() - start))
    return speeds


def measure_classifier(folder: Path, cache: Path, size: int, augment: AugmentConfig, epochs: int) -> list[float]:
    """Images per second of each epoch; the first includes everything before it."""
    start, speeds = time.perf_counter(), []
    settings = {"validation": 0.0, "test": 0.0, "channels": 3, "size": size}
    dataset = data.load(DataConfig(path=str(folder), cache=str(cache), **settings))
    cpu.setup()  # as every training does
    config = policy.resolve(augment, kind="photos", channels=3, size=size)
    for epoch in range(epochs):
        count = 0
        batches = loader.batches(dataset.train, batch=BATCH, seed=0, epoch=epoch)
        for batch in loader.prefetch(batches):
            key = counter_rng.key(0, epoch)
            images_NCHW = policy.augment(batch.images_NCHW, config, key=key, positions_N=batch.positions_N)
            count += len(policy.normalise(images_NCHW, MEAN, STD))
        speeds.append(count / (time.perf_counter() - start))
        start = time.perf_counter()
    return speeds


def measure_decoding(folder: Path, seconds: float = 3.0) -> float:
    """Photographs per second that one core decodes when it does nothing else."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:256]]
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        Image.open(io.BytesIO(contents[count % len(contents)])).load()
        count += 1
    return count / (time.perf_counter() - start)


def measure_copying(size: int) -> float:
    """Images per second whose bytes one core copies."""
    source = torch.randint(0, 256, (max(1, (1 << 28) // (3 * size * size)), 3, size, size), dtype=torch.uint8)
    target, start = torch.empty_like(source), time.perf_counter()
    for _ in range(4):
        target.copy_(source)
    return 4 * len(source) / (time.perf_counter() - start)


CASES = {
    # name: images, width, height, suffix, our image size, torchvision's crop, our augmentation
    "small": (10_000, 32, 32, "png", 32, [transforms.RandomCrop(32, padding=4)], {"flip": 0.5, "shift": 0.125}),
    "photos": (2_000, 500, 375, "jpg", 224, [transforms.RandomResizedCrop(224)], {"flip": 0.5, "crop": 0.08}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores, to see
    print(f"{len(os.sched_getaffinity(0))} cores, images/s of the first epoch, and of the best later one", flush=True)
    for name in args.cases or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            compare(name, Path(scratch), args.epochs, args.rounds)


def compare(name: str, scratch: Path, epochs: int, rounds: int) -> None:
    """Measure each arm in turns, for a number of rounds, and print the medians."""
    count, width, height, suffix, size, crop_transforms, strengths = CASES[name]
    folder = write_crops(scratch / "set", count, width, height, suffix)
    small_folder = write_crops(scratch / "small", 100, width, height, suffix)
    augment = AugmentConfig(policy="none", **strengths)
    arms: dict[str, Callable[[Path, Path], list[float]]] = {
        f"torchvision, {workers} workers": lambda path, _, workers=workers: measure_torchvision(
            path, crop_transforms, workers, epochs
        )
        for workers in WORKERS
    }
    arms["classifier"] = lambda path, cache: measure_classifier(path, cache, size, augment, epochs)
    for arm in arms.values():
        arm(small_folder, scratch / "small cache")
    speeds: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm, measure in arms.items():
            first, *later = measure(folder, scratch / f"cache {number}")
            speeds[arm].append((first, max(later)))
            print(f"{name}: {arm:<24} {first:9,.0f} {max(later):9,.0f}", flush=True)
    medians = {arm: [statistics.median(values) for values in zip(*pairs, strict=True)] for arm, pairs in speeds.items()}
    print(f"{name}, medians of {rounds}")
    for arm, (first, later) in medians.items():
        print(f"{name}: {arm:<24} {first:9,.0f} {later:9,.0f}")
    first, later = medians.pop("classifier")
    best = [max(values) for values in zip(*medians.values(), strict=True)]
    print(f"{name}: {'times as fast':<24} {first / best[0]:9.2f} {later / best[1]:9.2f}")
    limits = {"copying": measure_copying(size)}
    if suffix == "jpg":
        limits["decoding"] = measure_decoding(folder)
    print(f"{name}: {'one core, bare':<24} {json.dumps({k: round(v) for k, v in limits.items()})}", flush=True)


if __name__ == "__main__":
    main()
