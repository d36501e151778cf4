"""From files to a model's input, beside torchvision's way: python tests/benchmarks/data.py [small|photos ...]

Both make the same kind of batch (random crop and mirror, normalised float32) of the same files, in turns, in one run:
torchvision's ImageFolder with Pillow transforms and a DataLoader of each worker count, of which the best counts, and
`data.load` with its cache, the loader and the batched augmentation. The first epoch is from cold files, the cache to be
built; later ones come after it. Libraries have been started before, on both sides. The median of some rounds counts.
Beside them what the machine can do: bare JPEG decoding on a core, and copying memory.
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


def sources() -> list[np.ndarray]:
    """Photographs that scikit-image ships."""
    from skimage import data as photographs

    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
    return [np.asarray(getattr(photographs, name)())[..., :3] for name in names]


def write(folder: Path, count: int, width: int, height: int, ending: str, quality: int = 90) -> Path:
    """Seeded crops of the photographs, each of its own place and scale, as files of two classes."""
    rng, pictures = np.random.default_rng(0), [Image.fromarray(picture) for picture in sources()]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        share = rng.uniform(0.3, 0.9)
        wide, high = int(picture.width * share), int(picture.width * share * height / width)
        high = min(high, picture.height)
        left, top = int(rng.integers(0, picture.width - wide + 1)), int(rng.integers(0, picture.height - high + 1))
        crop = picture.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high))
        home = folder / "train" / "ab"[number % 2]
        home.mkdir(parents=True, exist_ok=True)
        crop.save(home / f"{number:06d}.{ending}", quality=quality)
    return folder


def theirs(folder: Path, moves: list, workers: int, epochs: int) -> list[float]:
    """Images a second of each epoch, starting with the workers' start."""
    steps = [*moves, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    made = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=False
    )
    found = []
    for _ in range(epochs):
        began = time.perf_counter()
        count = sum(len(labels) for _, labels in made)
        found.append(count / (time.perf_counter() - began))
    return found


def ours(folder: Path, cache: Path, size: int, augment: AugmentConfig, epochs: int) -> list[float]:
    """Images a second of each epoch, the first with all that comes before it."""
    began, found = time.perf_counter(), []
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
        found.append(count / (time.perf_counter() - began))
        began = time.perf_counter()
    return found


def bare_decoding(folder: Path, seconds: float = 3.0) -> float:
    """Photographs a second that one core decodes, and does nothing else."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:256]]
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        Image.open(io.BytesIO(contents[count % len(contents)])).load()
        count += 1
    return count / (time.perf_counter() - began)


def bare_copying(size: int) -> float:
    """Images a second whose bytes one core copies."""
    source = torch.randint(0, 256, (max(1, (1 << 28) // (3 * size * size)), 3, size, size), dtype=torch.uint8)
    target, began = torch.empty_like(source), time.perf_counter()
    for _ in range(4):
        target.copy_(source)
    return 4 * len(source) / (time.perf_counter() - began)


CASES = {
    # name: images, width, height, ending, our size, torchvision's moves, our augmentation
    "small": (10_000, 32, 32, "png", 32, [transforms.RandomCrop(32, padding=4)], {"flip": 0.5, "shift": 0.125}),
    "photos": (2_000, 500, 375, "jpg", 224, [transforms.RandomResizedCrop(224)], {"flip": 0.5, "crop": 0.08}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores, to see
    print(f"{len(os.sched_getaffinity(0))} cores, images a second; the first epoch, and the best later one", flush=True)
    for name in words.cases or CASES:
        with tempfile.TemporaryDirectory() as made:
            compare(name, Path(made), words.epochs, words.rounds)


def compare(name: str, home: Path, epochs: int, rounds: int) -> None:
    """Each way in turns, so many rounds, and what it comes to."""
    count, width, height, ending, size, moves, strengths = CASES[name]
    folder, few = write(home / "set", count, width, height, ending), write(home / "few", 100, width, height, ending)
    augment = AugmentConfig(policy="none", **strengths)
    ways: dict[str, Callable[[Path, Path], list[float]]] = {
        f"torchvision, {workers} workers": lambda path, _, workers=workers: theirs(path, moves, workers, epochs)
        for workers in WORKERS
    }
    ways["classifier"] = lambda path, cache: ours(path, cache, size, augment, epochs)
    for way in ways.values():
        way(few, home / "few cache")
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, measure in ways.items():
            first, *later = measure(folder, home / f"cache {number}")
            found[way].append((first, max(later)))
            print(f"{name}: {way:<24} {first:9,.0f} {max(later):9,.0f}", flush=True)
    medians = {way: [statistics.median(values) for values in zip(*pairs, strict=True)] for way, pairs in found.items()}
    print(f"{name}, medians of {rounds}")
    for way, (first, later) in medians.items():
        print(f"{name}: {way:<24} {first:9,.0f} {later:9,.0f}")
    first, later = medians.pop("classifier")
    best = [max(values) for values in zip(*medians.values(), strict=True)]
    print(f"{name}: {'times as fast':<24} {first / best[0]:9.2f} {later / best[1]:9.2f}")
    limits = {"copying": bare_copying(size)}
    if ending == "jpg":
        limits["decoding"] = bare_decoding(folder)
    print(f"{name}: {'one core, bare':<24} {json.dumps({k: round(v) for k, v in limits.items()})}", flush=True)


if __name__ == "__main__":
    main()
