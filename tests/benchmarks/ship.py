"""Is a shipped model fast? python tests/benchmarks/ship.py OUT [--parts engines compress predict]

Trains small bundles into OUT, once, and prints, each against a baseline measured in the same run and in turns:

engines: milliseconds of a batch of 1 and 32 by eager torch in fp32, as a user would write it, by ONNX Runtime in fp32
and in int8, on one thread; "bare" is without the statistics that tell strange images. And the accuracy that int8 loses
on validation images, with its paired interval. A network of 28 px on Fashion-MNIST, EfficientNet-Lite0 with a head of
its own on photographs, ResNet-18 at 224 px.
compress: the fastest pruned or distilled network, in fp32, against the original.
predict: images per second of `predict` on PHOTOS JPEGs of 500 x 375, against scripts of torchvision with torch, and of
timm with torch (ship_rivals.py), of the same network; from the start of the process to its end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import nn

from classifier.bundle import bundle
from classifier.bundle.predictor import Predictor
from classifier.compress import quantize
from classifier.export.formats import write_graph
from classifier.export.graph import Graph
from tests.benchmarks.rivals import BACKBONE
from tests.benchmarks.sets import write_set

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS, PHOTO_SIZE = 5_000, (500, 375)
BATCHES, SECONDS, PREDICT_ROUNDS = (1, 32), 15.0, 2
# Points that compress may lose: the photographs are too few to show less.
MAX_LOSS = {"things": "0.5", "photos": "20"}
# What `train` gets for each network, after the images.
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain7_32, 28 px": ("things", ("--recipe", "fashion-quick", "--train.epochs", "4")),
    "resnet9_16, 28 px": ("things", ("--recipe", "fashion-quick", "--model.name", "resnet9_16", "--train.epochs", "2")),
    "efficientnet-lite0, 224 px": (
        "photos",
        ("--recipe", "finetune", "--model.name", f"timm/{BACKBONE}", "--model.weights", "imagenet"),
    ),
    "resnet18, 224 px": (
        "photos",
        ("--recipe", "photos", "--model.name", "resnet18", "--data.size", "224", "--train.epochs", "1"),
    ),
}


class Bench:
    """Runs verbs, whose runs stay in OUT."""

    def __init__(self, out: Path) -> None:
        self.out, self.runs = out, out / "runs"
        (out / "sets").mkdir(parents=True, exist_ok=True)

    def run(self, verb: str, *words: object) -> None:
        command = [sys.executable, ROOT / "jobs" / f"{verb}.py", *words]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)

    def train(self, network: str) -> Path:
        """The run of a network, with an export to ONNX."""
        images, flags = NETWORKS[network]
        name = network.partition(",")[0]
        folder = self.runs / name
        if not (folder / "bundle" / "onnx" / "export.json").exists():
            path = write_set(images, self.out / "sets", self.out / "downloads")
            self.run("train", path, *flags, "--out", self.runs, "--name", name)
            self.run("export", folder)
        return folder

    def compress(self, network: str, *steps: str) -> Path:
        folder, limit = self.train(network), MAX_LOSS[NETWORKS[network][0]]
        name = f"{folder.name}-{'-'.join(steps)}"
        if not (self.runs / name / "result.json").exists():
            words = ["--max-loss", limit, "--steps", *steps, "--out", self.runs, "--name", name]
            self.run("compress", folder, *words)
        return self.runs / name


def write_eager(folder: Path) -> Callable[[np.ndarray], object]:
    """What a user would write: normalise, the network, softmax; no mirrored view, no temperature."""
    about, model = bundle.load(folder)
    model = model.float().to(memory_format=torch.contiguous_format).eval()
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (about.mean, about.std))

    def predict(images_NCHW: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return model((torch.from_numpy(images_NCHW) / 255 - mean_C11) / std_C11).softmax(1)

    assert isinstance(model, nn.Module)
    return predict


def open_bare(run: Path, folder: Path) -> dict[str, Callable[[np.ndarray], object]]:
    """The graph of a run with its probabilities alone, in fp32 and int8."""
    about, model = bundle.load(run)
    images_NCHW = np.random.default_rng(1).integers(0, 256, (64, about.channels, about.size, about.size), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    graph = Graph(model, about.scorer(torch.device("cpu")), ())
    write_graph(graph, "onnx", folder, torch.from_numpy(images_NCHW[:2]), about.class_names)
    prepared, small = folder / "prepared.onnx", folder / "int8.onnx"
    quantize.prepare(folder / "model.onnx", prepared)
    quantize.quantize(prepared, small, images_NCHW, quantize.SCHEMES[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def open_session(path: Path) -> Callable[[np.ndarray], object]:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda images_NCHW: session.run(None, {"images": images_NCHW})

    return {"bare fp32": open_session(folder / "model.onnx"), "bare int8": open_session(small)}


def time_in_turns(ways: dict[str, Callable[[np.ndarray], object]], images_NCHW: np.ndarray) -> dict[str, float]:
    """Median milliseconds of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + SECONDS
    for predict in ways.values():
        predict(images_NCHW)
    while time.perf_counter() < end or len(min(seconds.values(), key=len)) < 5:
        for name, predict in ways.items():
            began = time.perf_counter()
            predict(images_NCHW)
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def compare_engines(bench: Bench) -> None:
    torch.set_num_threads(1)
    for network in NETWORKS:
        folder = bench.train(network)
        small = bench.compress(network, "int8")
        views = 2 if bundle.read(folder).test_flip else 1
        ways: dict[str, Callable[[np.ndarray], object]] = {"eager": write_eager(folder)}
        for name, path in (("ONNX Runtime fp32", folder), ("ONNX Runtime int8", small)):
            ways[name] = Predictor(path, engine="onnx", threads=1).engine.predict
        ways |= open_bare(folder, bench.out / "bare" / folder.name)
        about, rng = bundle.read(folder), np.random.default_rng(0)
        print(f"{network}{', mirrored views averaged by the exports alone' * (views - 1)}")
        for batch in BATCHES:
            shape = (batch, about.channels, about.size, about.size)
            measured = time_in_turns(ways, rng.integers(0, 256, shape, dtype=np.uint8))
            print(f"  batch {batch}:", *(f"{name} {value:.2f} ms" for name, value in measured.items()), sep="  ")
            eager, fp32, int8, bare, bare_int8 = measured.values()
            print(
                f"    ONNX Runtime fp32 {views * eager / fp32:.2f} times as fast as eager with as many views, bare "
                f"{views * eager / bare:.2f}; int8 {fp32 / int8:.2f} times as fast as fp32, bare {bare / bare_int8:.2f}"
            )
        report_rows(small)


def report_rows(folder: Path) -> None:
    for row in json.loads((folder / "compress.json").read_text())["rows"]:
        low, high = row["loss_interval"]
        print(
            f"  {row['name']}: {row['milliseconds_1']:.2f} ms at batch 1, {row['milliseconds_32']:.2f} at 32, accuracy "
            f"{row['accuracy']:.2%}, loses {100 * row['loss']:.2f} points ({100 * low:.2f} to {100 * high:.2f})"
        )


def compare_compressed(bench: Bench) -> None:
    report_rows(bench.compress("plain7_32, 28 px", "prune", "distill"))


def write_photos(folder: Path, sources: Path) -> Path:
    """PHOTOS JPEGs of PHOTO_SIZE: parts of the photographs, each at its own place and scale."""
    files, rng = sorted(sources.rglob("*.png")), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(len(list(folder.iterdir())), PHOTOS):
        image = Image.open(files[n % len(files)]).convert("RGB")
        share, (x, y) = rng.uniform(0.6, 1), rng.uniform(0, 1, 2)
        width, height = image.width * share, image.height * share
        left, top = x * (image.width - width), y * (image.height - height)
        part = image.resize(PHOTO_SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        part.save(folder / f"{n:05d}.jpg", quality=90)
    return folder


def compare_predict(bench: Bench) -> None:
    network = "efficientnet-lite0, 224 px"
    folder = bench.train(network)
    small = bench.compress(network, "int8")
    photos = write_photos(bench.out / "photos", bench.out / "sets" / NETWORKS[network][0])
    rivals = Path(__file__).with_name("ship_rivals.py")
    ours, null = ROOT / "jobs" / "predict.py", os.devnull
    ways: dict[str, list[object]] = {
        "predict, fp32": [ours, folder, photos, "--format", "csv"],
        "predict, int8": [ours, small, photos, "--format", "csv"],
        "torchvision and torch": [rivals, "torchvision", folder / "bundle", photos],
        "timm and torch": [rivals, "timm", folder / "bundle", photos],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(PREDICT_ROUNDS):
        for name, words in ways.items():
            began = time.perf_counter()
            with open(null, "w") as nowhere:
                subprocess.run([sys.executable, *map(str, words)], check=True, stdout=nowhere)
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(values) for name, values in seconds.items()}
    for name, value in best.items():
        ratios = ", ".join(f"{best[other] / value:.2f} x {other}" for other in list(ways)[2:])
        print(f"{name}: {value:.1f} s, {PHOTOS / value:.0f} images/s ({ratios})")


PARTS = {"engines": compare_engines, "compress": compare_compressed, "predict": compare_predict}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    args = parser.parse_args()
    bench = Bench(args.out.resolve())
    for part in args.parts:
        PARTS[part](bench)


if __name__ == "__main__":
    main()
