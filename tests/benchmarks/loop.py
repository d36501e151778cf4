"""What the loop costs beside one written by hand: python tests/benchmarks/loop.py

The same net, batch, number format and augmentation strength on Fashion-MNIST-like images, in one process, in turns:
the project's `Training.update`, and a plain loop over a DataLoader with torchvision's transforms. Prints images a
second of each and their ratio; the figures of one run can be compared with each other only.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import torch
from torch import nn
from torchvision.transforms import v2

from classifier import models
from classifier.config import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Part
from classifier.distributed import Group
from classifier.recipes import recipe
from classifier.resolve import resolve
from classifier.training import Training

IMAGES, ROUNDS, STEPS = 8192, 3, 24


def made_up() -> Dataset:
    """Images whose content costs what real ones cost: none of the arithmetic depends on it."""
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, 10, (IMAGES,), generator=generator)
    part = Part(images_NCHW, labels_N, tuple(map(str, range(IMAGES))))
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
        loans={},
    )


def ours(experiment: Experiment, dataset: Dataset) -> float:
    """Images a second of the project's steps."""
    training = Training(experiment, dataset, Group())
    training.begin_epoch(0)
    began, images = 0.0, 0
    for batch in loader.batches(dataset.train, batch=training.batch, seed=0, epoch=0):
        if batch.step == 4:  # warm
            began, images = time.perf_counter(), 0
        training.update(batch, 0)
        images += batch.global_count
        if batch.step == STEPS:
            break
    return images / (time.perf_counter() - began)


class Pictures(torch.utils.data.Dataset):
    """As most people write it: one image at a time, with torchvision's transforms."""

    def __init__(self, part: Part) -> None:
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


def by_hand(experiment: Experiment, dataset: Dataset, workers: int) -> float:
    """Images a second of a plain loop, with the same net, number format and optimizer family (SGD)."""
    net = models.build(experiment.model, classes=10, channels=1, size=28).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    batches = torch.utils.data.DataLoader(
        Pictures(dataset.train), batch_size=experiment.data.batch, shuffle=True, num_workers=workers
    )
    began, images = 0.0, 0
    for step, (images_NCHW, labels_N) in enumerate(batches):
        if step == 4:
            began, images = time.perf_counter(), 0
        with torch.autocast("cpu", torch.bfloat16, enabled=experiment.train.precision == "bf16"):
            outputs_NK = net(images_NCHW.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(outputs_NK.float(), labels_N, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        images += len(labels_N)
        if step == STEPS:
            break
    return images / (time.perf_counter() - began)


def main() -> None:
    dataset = made_up()
    experiment = resolve(recipe("fashion-quick"), dataset)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):  # in turns, so that a disturbance hits all; the best of each is told
        for name, measure in (
            ("classifier", lambda: ours(experiment, dataset)),
            ("by hand, 0 loader workers", lambda: by_hand(experiment, dataset, 0)),
            ("by hand, 2 loader workers", lambda: by_hand(experiment, dataset, 2)),
        ):
            best[name] = max(best.get(name, 0.0), measure())
    for name, speed in best.items():
        print(f"{name:<28} {speed:8,.0f} images/s   classifier / this: {best['classifier'] / speed:.2f}")


if __name__ == "__main__":
    main()
