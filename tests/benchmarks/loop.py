"""What the loop costs beside one written by hand: python tests/benchmarks/loop.py [--device cuda]

The same net, batch, number format and augmentation strength on Fashion-MNIST-like images, in one process, in turns:
the project's `Training.update`, and a plain loop over a DataLoader with torchvision's transforms. Prints images a
second of each and their ratio; the figures of one run can be compared with each other only.
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
IMAGES = {"cpu": 1 << 13, "cuda": 1 << 16}
WARM, STEPS = 4, {"cpu": 24, "cuda": 120}


@dataclasses.dataclass
class Watch:
    """Images a second from step WARM to the last, when the device has done what it was given."""

    device: torch.device
    began: float = 0.0
    images: int = 0

    def passed(self, step: int, images: int) -> bool:
        """Called after each step; whether it was the last."""
        self.images += images
        if step == WARM:
            self.began, self.images = self.now(), 0
        return step == STEPS[self.device.type]

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def speed(self) -> float:
        return self.images / (self.now() - self.began)


def made_up(count: int) -> Dataset:
    """Images whose content costs what real ones cost: none of the arithmetic depends on it."""
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, 10, (count,), generator=generator)
    part = Split(images_NCHW, labels_N, tuple(map(str, range(count))))
    names = tuple("0123456789")
    return Dataset(
        name="made up",
        kind="objects",
        class_names=names,
        train=part,
        validation=part,
        test=part,
        mean=(0.5,),
        std=(0.3,),
        fit="crop",
        fingerprint="0" * 16,
        findings=(),
        split_record={},
    )


def ours(experiment: Experiment, dataset: Dataset, device: torch.device) -> float:
    """Images a second of the project's steps."""
    training, watch = TrainState(experiment, dataset, ProcessGroup(device=device)), Watch(device)
    training.begin_epoch(0)
    batches = loader.batches(dataset.train, batch=training.batch, seed=0, epoch=0)
    for batch in loader.prefetch(batches, pin=device.type == "cuda"):
        training.train_step(batch, 0)
        if watch.passed(batch.step, batch.global_count):
            break
    return watch.speed()


class Pictures(torch.utils.data.Dataset):
    """As most people write it: one image at a time, with torchvision's transforms."""

    def __init__(self, part: Split) -> None:
        self.part, self.images_NCHW = part, part.images_NCHW[:]
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomCrop(28, padding=1),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.3]),
            ]
        )

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images_NCHW[i]), self.part.labels_N[i]


def by_hand(experiment: Experiment, dataset: Dataset, device: torch.device, workers: int) -> float:
    """Images a second of a plain loop, with the same net, number format and optimizer family (SGD)."""
    net = models.build(experiment.model, classes=10, channels=1, size=28)
    net = net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    batches = torch.utils.data.DataLoader(
        Pictures(dataset.train),
        batch_size=experiment.data.batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    watch = Watch(device)
    for step, (images_NCHW, labels_N) in enumerate(batches):
        images_NCHW = images_NCHW.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=experiment.train.precision == "bf16"):
            outputs_NK = net(images_NCHW)
        labels_N = labels_N.to(device, non_blocking=True)
        loss = nn.functional.cross_entropy(outputs_NK.float(), labels_N, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch.passed(step, len(labels_N)):
            break
    return watch.speed()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=list(IMAGES))
    device = pick_device(parser.parse_args().device)
    dataset = made_up(IMAGES[device.type])
    experiment = resolve(recipe("fashion-quick").override("train.device", device.type), dataset)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):  # in turns, so that a disturbance hits all; the best of each is told
        best["classifier"] = max(best.get("classifier", 0.0), ours(experiment, dataset, device))
        for workers in (0, os.cpu_count() or 1):
            name = f"by hand, {workers} loader workers"
            best[name] = max(best.get(name, 0.0), by_hand(experiment, dataset, device, workers))
    for name, speed in best.items():
        print(f"{name:<28} {speed:8,.0f} images/s   classifier / this: {best['classifier'] / speed:.2f}")


if __name__ == "__main__":
    main()
