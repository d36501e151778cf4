"""Several labels an image, against a loop written by hand with the same minutes: mAP of a test split.

python tests/benchmarks/tasks/multilabel.py [--sets garments digits] [--minutes 3] [--seeds 1]

garments: 2 to 4 of Fashion-MNIST's on a canvas of 56 pixels, where they may overlap. digits: a grid of three by three
cells, up to six of them with a digit of the built-in ones. `classifier train` gets a manifest and minutes, no more.
The loop by hand has torchvision's ResNet-18, for small images without its first pooling, the asymmetric loss and the
settings of its authors (Adam, one cycle, moving average), and as many epochs as the minutes hold.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import nn

import classifier
from classifier.data.readers.idx import read_idx

IMAGES, TEST_IMAGES, BATCH = 6000, 2000, 64
GARMENTS = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
DIGITS = tuple(map(str, range(10)))


def draw_garments(pool: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images N x 56 x 56 and targets N x 10. pool: images of single garments, and their classes."""
    rng, (single_NHW, classes_N) = np.random.default_rng(seed), pool
    images_NHW, targets_NK = np.zeros((count, 56, 56), np.uint8), np.zeros((count, 10), bool)
    for image_HW, target_K in zip(images_NHW, targets_NK, strict=True):
        for cell in rng.permutation(4)[: rng.integers(2, 5)]:
            row = rng.integers(len(single_NHW))
            top, left = np.clip(28 * np.array(divmod(cell, 2)) + rng.integers(-6, 7, 2), 0, 28)
            part_HW = image_HW[top : top + 28, left : left + 28]
            np.maximum(part_HW, single_NHW[row], out=part_HW)
            target_K[classes_N[row]] = True
    return images_NHW, targets_NK


def draw_digits(pool: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images N x 30 x 30 and targets N x 10."""
    rng, (single_NHW, classes_N) = np.random.default_rng(seed), pool
    images_NHW, targets_NK = np.zeros((count, 30, 30), np.uint8), np.zeros((count, 10), bool)
    for image_HW, target_K in zip(images_NHW, targets_NK, strict=True):
        for cell in rng.permutation(9)[: rng.integers(0, 7)]:
            row = rng.integers(len(single_NHW))
            top, left = 10 * np.array(divmod(cell, 3)) + rng.integers(0, 3, 2)
            image_HW[top : top + 8, left : left + 8] = single_NHW[row]
            target_K[classes_N[row]] = True
    return images_NHW, targets_NK


def load_pools(name: str, folder: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the single images, with their classes, that training and test images are made of: none is in both."""
    if name == "garments":
        source = read_idx(folder)
        images_NHW, classes_N = np.asarray(source.images)[:, 0], source.labels_N
        is_test_N = source.splits_N == source.splits_N.max()
    else:
        pixels_ND, classes_N = (np.asarray(values) for values in load_digits(return_X_y=True))
        images_NHW = (pixels_ND.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
        is_test_N = np.arange(len(classes_N)) % 4 == 0
    return (images_NHW[~is_test_N], classes_N[~is_test_N]), (images_NHW[is_test_N], classes_N[is_test_N])


def write_manifest(folder: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]], names: tuple[str, ...]) -> Path:
    """Write the images and labels.csv, whose column `labels` has lists of their names, some of them empty."""
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels", "split"))
        for split, (images_NHW, targets_NK) in parts.items():
            for n, (image_HW, target_K) in enumerate(zip(images_NHW, targets_NK, strict=True)):
                path = f"{split}{n}.png"
                Image.fromarray(image_HW).save(folder / path)
                writer.writerow((path, json.dumps([names[k] for k in np.flatnonzero(target_K)]), split))
    return folder / "labels.csv"


def train_here(manifest: Path, test_NHW: np.ndarray, names: tuple[str, ...], minutes: float, seed: int) -> np.ndarray:
    """Return probabilities_NK of the test images by what `classifier train` makes of the manifest."""
    settings = {"seed": seed, "data.test": 0.0}  # the test images are elsewhere
    run = classifier.train(str(manifest), minutes=minutes, out=str(manifest.parent / "runs"), **settings)
    model = classifier.load(run)
    order_K = [model.class_names.index(name) for name in names]
    return model([np.ascontiguousarray(image_HW) for image_HW in test_NHW])[:, order_K]


def train_by_hand(
    images_NHW: np.ndarray, targets_NK: np.ndarray, test_NHW: np.ndarray, minutes: float, seed: int
) -> np.ndarray:
    """Return probabilities_NK of the test images. The time of an epoch is measured first, which is not counted."""
    torch.manual_seed(seed)
    images_NCHW = torch.from_numpy(images_NHW)[:, None].float() / 255
    mean, std = images_NCHW.mean(), images_NCHW.std()
    images_NCHW, on_NK = (images_NCHW - mean) / std, torch.from_numpy(targets_NK).float()

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = torchvision.models.resnet18(num_classes=on_NK.shape[1])
        model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        setattr(model, "maxpool", nn.Identity())  # noqa: B010 - torchvision declares it as a pooling
        model = model.to(memory_format=torch.channels_last)
        return model, torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, index_B: torch.Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits_BK = model(images_NCHW[index_B].contiguous(memory_format=torch.channels_last))
        asymmetric_loss(logits_BK.float(), on_NK[index_B]).backward()
        optimizer.step()

    steps_per_epoch, (model, optimizer) = len(images_NCHW) // BATCH, build()
    started = time.perf_counter()
    for _ in range(8):
        step(model, optimizer, torch.randperm(len(images_NCHW))[:BATCH])
    step_seconds = (time.perf_counter() - started) / 8
    epochs = max(1, int(60 * minutes / (step_seconds * steps_per_epoch)))
    print(f"  by hand: {epochs} epochs of {step_seconds * steps_per_epoch:.1f} s", flush=True)
    model, optimizer = build()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, epochs * steps_per_epoch, pct_start=0.2)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    end = time.perf_counter() + 60 * minutes
    for _ in range(epochs):
        for index_B in torch.randperm(len(images_NCHW))[: steps_per_epoch * BATCH].split(BATCH):
            step(model, optimizer, index_B)
            schedule.step()
            average.update_parameters(model)
        if time.perf_counter() > end:
            break
    average.eval()
    test_NCHW = (torch.from_numpy(test_NHW)[:, None].float() / 255 - mean) / std
    with torch.no_grad():
        return torch.cat([average(batch_NCHW).sigmoid() for batch_NCHW in test_NCHW.split(256)]).numpy()


def asymmetric_loss(logits_NK: torch.Tensor, targets_NK: torch.Tensor) -> torch.Tensor:
    """As in the authors' repository (Alibaba-MIIL/ASL): gammas 4 and 0, clip 0.05, no gradient of the focal weight."""
    on_NK = logits_NK.sigmoid()
    off_NK = (1 - on_NK + 0.05).clamp(max=1)
    losses_NK = targets_NK * on_NK.clamp(min=1e-8).log() + (1 - targets_NK) * off_NK.clamp(min=1e-8).log()
    with torch.no_grad():
        right_NK = on_NK * targets_NK + off_NK * (1 - targets_NK)
        weights_NK = (1 - right_NK) ** (4 * (1 - targets_NK))
    return -(losses_NK * weights_NK).sum() / len(logits_NK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of Fashion-MNIST's files")
    parser.add_argument("--sets", nargs="+", default=["garments", "digits"], choices=["garments", "digits"])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    for name in options.sets:
        names, draw = (GARMENTS, draw_garments) if name == "garments" else (DIGITS, draw_digits)
        pool, test_pool = load_pools(name, Path(options.data))
        found: dict[str, list[float]] = {"here": [], "by hand": []}
        for seed in range(options.seeds):
            train, (test_NHW, test_NK) = draw(pool, IMAGES, seed), draw(test_pool, TEST_IMAGES, 1000 + seed)
            with tempfile.TemporaryDirectory() as folder:
                manifest = write_manifest(Path(folder), {"train": train}, names)
                probabilities = {"here": train_here(manifest, test_NHW, names, options.minutes, seed)}
            probabilities["by hand"] = train_by_hand(*train, test_NHW, options.minutes, seed)
            for how, of_NK in probabilities.items():
                found[how].append(float(average_precision_score(test_NK, of_NK)))
                print(f"{name}, seed {seed}, {how}: mAP {found[how][-1]:.2%}", flush=True)
        means = {how: statistics.mean(values) for how, values in found.items()}
        print(f"{name}: {', '.join(f'{how} {mean:.2%}' for how, mean in means.items())}", flush=True)


if __name__ == "__main__":
    main()
