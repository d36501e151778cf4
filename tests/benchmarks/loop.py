"""The training loop against one written by hand: python tests/benchmarks/loop.py [--device cuda]

The same network, batch size, precision and augmentation strength on images like Fashion-MNIST's, in one process, in
turns: the project's `TrainState.train_step`, and a plain loop over a DataLoader with torchvision's transforms. Prints
the images per second of each and their ratio; compare numbers of the same run only.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import torch
from torch import nn
from torchvision.transforms import v2

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

ROUNDS = 3
IMAGE_COUNT = {"cpu": 1 << 13, "cuda": 1 << 16}
WARMUP_STEPS, LAST_STEP = 4, {"cpu": 24, "cuda": 120}


@dataclasses.dataclass
class Stopwatch:
    """Images per second from step WARMUP_STEPS to the last; waits for the device at both ends."""

    device: torch.device
    start: float = 0.0
    images: int = 0

    def count_step(self, step: int, images: int) -> bool:
        """Count a step; whether it was the last."""
        self.images += images
        if step == WARMUP_STEPS:
            self.start, self.images = self.now(), 0
        return step == LAST_STEP[self.device.type]

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def speed(self) -> float:
        return self.images / (self.now() - self.start)


def make_dataset(count: int) -> Dataset:
    """Random images: the time of a step does not depend on their content."""
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, 10, (count,), generator=generator)
    split = Split(images_NCHW, labels_N, tuple(map(str, range(count))))
    names = tuple("0123456789")
    return Dataset(
        name="random",
        kind="objects",
        class_names=names,
        train=split,
        validation=split,
        test=split,
        mean=(0.5,),
        std=(0.3,),
        fit="crop",
        fingerprint="0" * 16,
        findings=(),
        split_record={},
    )


def ours(experiment: Experiment, dataset: Dataset, device: torch.device) -> float:
    """Images per second of the project's steps."""
    training, stopwatch = TrainState(experiment, dataset, ProcessGroup(device=device)), Stopwatch(device)
    training.begin_epoch(0)
    batches = loader.batches(dataset.train, batch=training.batch, seed=0, epoch=0)
    for batch in loader.prefetch(batches, pin=device.type == "cuda"):
        training.train_step(batch, 0)
        if stopwatch.count_step(batch.step, batch.global_count):
            break
    return stopwatch.speed()


class PlainDataset(torch.utils.data.Dataset):
    """The usual way: one image at a time, with torchvision's transforms."""

    def __init__(self, split: Split) -> None:
        self.split, self.images_NCHW = split, split.images_NCHW[:]
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomCrop(28, padding=1),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.3]),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images_NCHW[i]), self.split.labels_N[i]


def plain_loop(experiment: Experiment, dataset: Dataset, device: torch.device, workers: int) -> float:
    """Images per second of a plain loop, with the same model, precision and optimizer family (SGD)."""
    model = models.build(experiment.model, classes=10, channels=1, size=28)
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    batches = torch.utils.data.DataLoader(
        PlainDataset(dataset.train),
        batch_size=experiment.data.batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    stopwatch = Stopwatch(device)
    for step, (images_NCHW, labels_N) in enumerate(batches):
        images_NCHW = images_NCHW.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=experiment.train.precision == "bf16"):
            outputs_NK = model(images_NCHW)
        labels_N = labels_N.to(device, non_blocking=True)
        loss = nn.functional.cross_entropy(outputs_NK.float(), labels_N, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if stopwatch.count_step(step, len(labels_N)):
            break
    return stopwatch.speed()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=list(IMAGE_COUNT))
    device = pick_device(parser.parse_args().device)
    dataset = make_dataset(IMAGE_COUNT[device.type])
    experiment = resolve(recipe("fashion-quick").override("train.device", device.type), dataset)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):  # in turns, so that other load hits all; each one's best counts
        best["classifier"] = max(best.get("classifier", 0.0), ours(experiment, dataset, device))
        for workers in (0, os.cpu_count() or 1):
            name = f"by hand, {workers} loader workers"
            best[name] = max(best.get(name, 0.0), plain_loop(experiment, dataset, device, workers))
    for name, speed in best.items():
        print(f"{name:<28} {speed:8,.0f} images/s   classifier / this: {best['classifier'] / speed:.2f}")


if __name__ == "__main__":
    main()
