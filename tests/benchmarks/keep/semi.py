"""What do unlabelled images bring? python tests/benchmarks/keep/semi.py OUT [--sets fashion photos] [--draws 0 1 2 3 4]

Fashion-MNIST: 4 and 40 labels a class beside 20,000 other training images without labels, by the settings that the
recipe auto has for them (without its measurements), tested on the 10,000 test images. `alone`: the same network,
settings, steps and labels, without the unlabelled images. `probe`: what the recipe auto trains on so few labels, a
linear probe of the installed backbone at 192 pixels, tested on the first 2,000 test images; `propagated`: the same
with 5,000 of the unlabelled images.

Photographs: of the 193 of sets.py for training 5 of a class have labels; the others have none, and the 91 of its test
are the test. `probe`: a linear probe of the labels alone; `propagated`: the recipe auto's with the others unlabelled.

Each cell, a way with the labels of a draw, is a file in OUT: cells that are there are not measured again.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import torch
from torch import Tensor

from classifier import data
from classifier.config.auto_recipe import Facts, build_probe, build_scratch
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset, Split
from classifier.data.unlabelled.images import NO_LABEL
from classifier.inference.features import extract_features, load_features, save_features
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.inference.propagated_probe import fit_propagated_probe
from classifier.inference.scorer import Scorer
from classifier.label.backbone import open_pretrained
from classifier.runtime.counter_rng import permutation
from classifier.training import head_probe
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from tests.benchmarks.sets import fetch_debian, write_set

FASHION = Path("/usr/share/datasets/fashion-mnist")
UNLABELLED, DRAWS = 20_000, 5
PROBED = 2000
"""Test images of Fashion-MNIST that linear probes are tested on."""
WAYS = {
    "fashion4": ("alone", "softmatch", "freematch", "probe", "propagated"),
    "fashion40": ("alone", "softmatch", "freematch", "probe", "propagated"),
    "photos5": ("probe", "propagated"),
}


def draw_labels(labels_N: Tensor, candidates_M: Tensor, per_class: int, draw: int) -> Tensor:
    """Return so many of the candidates of each class, by their index."""
    mixed_M = candidates_M[torch.randperm(len(candidates_M), generator=torch.Generator().manual_seed(draw))]
    return torch.cat([mixed_M[labels_N[mixed_M] == k][:per_class] for k in labels_N.unique().tolist()])


def without_labels(split: Split) -> Split:
    return replace(split, labels_N=torch.full_like(split.labels_N, NO_LABEL))


def take_labels(dataset: Dataset, chosen_M: Tensor, unlabelled: Split | None) -> Dataset:
    """Return the data set with these training images, all others of the test, and no validation images."""
    fingerprint = "" if unlabelled is None else f"{len(unlabelled):016x}"
    return replace(
        dataset,
        train=dataset.train.take(chosen_M),
        validation=dataset.validation.take(torch.arange(0)),
        unlabelled=unlabelled,
        unlabelled_fingerprint=fingerprint,
    )


def train(experiment: Experiment, dataset: Dataset, draw: int) -> tuple[float, float]:
    """Return test accuracy and seconds of a training without its test."""
    began = time.perf_counter()
    resolved = resolve(experiment.override_all({"train.keep": "last", "seed": draw, "train.device": "cpu"}), dataset)
    *_, last = fit(resolved, dataset)
    seconds = time.perf_counter() - began
    scorer = Scorer.from_experiment(resolved, dataset, torch.device("cpu"))
    return float(scorer.compute_scores(last.model, dataset.test)["accuracy"]), seconds


def make_fashion(out: Path, per_class: int, settings: dict[str, str]) -> Callable[[str, int], tuple[float, float]]:
    """Return what measures a way with the labels of a draw."""
    path = str(fetch_debian("dataset-fashion-mnist", FASHION, out))
    facts = Facts(images=10 * per_class, classes=10, side=28)
    semi = build_scratch(replace(facts, unlabelled=UNLABELLED))
    for name, value in settings.items():
        semi = semi.override_text(name, value)
    dataset = data.load(DataConfig(path=path))
    order_N, labels_N = permutation(len(dataset.train), 0, 0), dataset.train.labels_N
    unlabelled = without_labels(dataset.train.take(order_N[:UNLABELLED].sort().values))

    def measure(way: str, draw: int) -> tuple[float, float]:
        chosen_M = draw_labels(labels_N, order_N[UNLABELLED:], per_class, draw)
        if way in ("probe", "propagated"):
            return probe_fashion(dataset, chosen_M, unlabelled, way, out)
        changes = {"semi.weight": 0.0} if way == "alone" else {"semi.method": way}
        return train(semi.override_all(changes), take_labels(dataset, chosen_M, unlabelled), draw)

    return measure


def probe_fashion(dataset: Dataset, chosen_M: Tensor, unlabelled: Split, way: str, out: Path) -> tuple[float, float]:
    """Return test accuracy and seconds of a linear probe. Features of test and unlabelled images are kept in OUT."""
    backbone = open_pretrained(dataset.size, DataConfig(), "cpu")
    side = backbone.spec.size

    def extract(images_NCHW: Tensor, name: str = "") -> Tensor:
        file = out / f"{name}-{side}.safetensors"
        if name and (stored := load_features(file)) is not None:
            return stored["features"]
        parts = []
        for part_NCHW in images_NCHW.split(128):
            large_NCHW = torch.nn.functional.interpolate(part_NCHW.float(), (side, side), mode="bilinear")
            large_NCHW = large_NCHW.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
            parts.append(extract_features(backbone.model, backbone.scorer, large_NCHW))
        if name:
            save_features({"features": torch.cat(parts)}, file)
        return torch.cat(parts)

    test_NF = extract(dataset.test.images_NCHW[:PROBED], "test")
    unlabelled_MF = extract(unlabelled.images_NCHW[: head_probe.MAX_IMAGES], "unlabelled")
    began = time.perf_counter()
    features_NF, labels_N = extract(dataset.train.images_NCHW[chosen_M]), dataset.train.labels_N[chosen_M]
    classes = len(dataset.class_names)
    if way == "probe":
        probe = fit_linear_probe(features_NF, labels_N, classes)
    else:
        probe = fit_propagated_probe(features_NF, labels_N, classes, unlabelled_MF).probe
    seconds = time.perf_counter() - began
    return float((probe.head(test_NF).argmax(1) == dataset.test.labels_N[:PROBED]).float().mean()), seconds


def make_photos(out: Path) -> Callable[[str, int], tuple[float, float]]:
    """Return what measures a way with the labels of a draw."""
    path = write_set("photos", out, out)
    probe = build_probe(Facts(images=25, classes=5, side=224))
    dataset = data.load(replace(probe.data, path=str(path)))
    everything = torch.arange(len(dataset.train))

    def measure(way: str, draw: int) -> tuple[float, float]:
        chosen_M = draw_labels(dataset.train.labels_N, everything, 5, draw)
        others_M = everything[~torch.isin(everything, chosen_M)]
        unlabelled = None if way == "probe" else without_labels(dataset.train.take(others_M))
        return train(probe, take_labels(dataset, chosen_M, unlabelled), draw)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="*", default=["photos5", "fashion4", "fashion40"], choices=WAYS)
    parser.add_argument("--ways", nargs="*", default=[], help="of these sets; all if left out")
    parser.add_argument("--draws", nargs="*", type=int, default=range(DRAWS))
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in arguments.sets:
        measure = None
        for way in (one for one in WAYS[name] if not arguments.ways or one in arguments.ways):
            for draw in arguments.draws:
                cell = arguments.out / f"{name}-{way}-{draw}.json"
                if cell.exists():
                    continue
                if measure is None and name.startswith("fashion"):
                    per_class = int(name.removeprefix("fashion"))
                    measure = make_fashion(arguments.out, per_class, dict(arguments.set))
                measure = measure or make_photos(arguments.out)
                accuracy, seconds = measure(way, draw)
                cell.write_text(json.dumps({"accuracy": accuracy, "seconds": seconds}))
                print(f"  {cell.stem}: {accuracy:.2%} after {seconds:.0f} s", flush=True)
        print_table(arguments.out, name)


def print_table(out: Path, name: str) -> None:
    """Print the mean error of each way, and how it compares with the first on the same draws."""
    cells = {
        way: {int(file.stem.rpartition("-")[2]): json.loads(file.read_text()) for file in out.glob(f"{name}-{way}-*")}
        for way in WAYS[name]
    }
    first = cells[WAYS[name][0]]
    for way, draws in cells.items():
        if not draws:
            continue
        errors = [100 * (1 - one["accuracy"]) for one in draws.values()]
        deviation = statistics.stdev(errors) if len(errors) > 1 else 0.0
        line = f"{name:<10} {way:<11} error {statistics.mean(errors):5.2f} % ± {deviation:4.2f} ({len(errors)} draws)"
        if way != WAYS[name][0] and (both := sorted(first.keys() & draws.keys())):
            own, other = (statistics.mean(100 * (1 - one[n]["accuracy"]) for n in both) for one in (draws, first))
            line += f", {own / other:.2f} of {WAYS[name][0]}'s, {other - own:+.1f} points"
        print(f"{line}, {statistics.mean(one['seconds'] for one in draws.values()):.0f} s", flush=True)


if __name__ == "__main__":
    main()
