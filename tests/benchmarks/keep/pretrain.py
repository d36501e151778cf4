"""What is pretraining worth? python tests/benchmarks/keep/pretrain.py [--method simclr] [--model plain7_32]

Fashion-MNIST: a network is pretrained on 20,000 training images without their labels. Then, for each of 5 draws of 40
other images a class with labels, test accuracies: of a linear probe of its features, before and after; of the same
network trained from scratch on the 400 images, and fine-tuned on them, both by the recipe digits; of a linear probe of
ImageNet features (the installed backbone, on enlarged images). Means and standard deviations over the draws.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import torch
from torch import Tensor

from classifier import data, models
from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.inference.features import extract_features
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.inference.scorer import Scorer
from classifier.label.backbone import open_pretrained
from classifier.pretraining.images import PretrainingImages
from classifier.pretraining.loop import pretrain
from classifier.pretraining.methods import METHODS
from classifier.pretraining.record import write_weights
from classifier.pretraining.views import choose_augment
from classifier.runtime.counter_rng import permutation
from classifier.training.loop import fit
from classifier.training.resolve import choose_precision, resolve
from jobs.pretrain import DEFAULTS, choose_optimizer
from tests.benchmarks.sets import fetch_debian

FASHION = Path("/usr/share/datasets/fashion-mnist")
UNLABELLED, CANDIDATES, LABELS, DRAWS = 20_000, 10_000, 40, 5
SIZE = 224
"""Of the images as the ImageNet backbone gets them."""


def draw_labels(dataset: Dataset, indices_N: Tensor, draw: int) -> Tensor:
    """Return LABELS of these images of each class, by their index."""
    generator = torch.Generator().manual_seed(draw)
    mixed_N = indices_N[torch.randperm(len(indices_N), generator=generator)]
    labels_N = dataset.train.labels_N[mixed_N]
    return torch.cat([mixed_N[labels_N == k][:LABELS] for k in range(len(dataset.class_names))])


def probe(features_NF: Tensor, dataset: Dataset, chosen_N: Tensor, at_N: Tensor, test_MF: Tensor) -> float:
    """Return the test accuracy of a linear probe. features_NF: of the images `at_N`, of which some are chosen."""
    assert dataset.test is not None
    rows_N = torch.searchsorted(at_N, chosen_N)
    head = fit_linear_probe(features_NF[rows_N], dataset.train.labels_N[chosen_N], len(dataset.class_names)).head
    return float((head(test_MF).argmax(1) == dataset.test.labels_N).float().mean())


def train_on(dataset: Dataset, chosen_N: Tensor, model: str, epochs: int, weights: Path | None = None) -> float:
    """Return the test accuracy of the network, trained on the chosen images, as it is after the last epoch.

    weights: to start from, with a head that is fitted to their features first; None: from scratch."""
    assert dataset.test is not None
    own = replace(dataset, train=dataset.train.take(chosen_N), validation=dataset.validation.take(torch.arange(0)))
    asked = recipe("digits").override_all({"model.name": model, "train.epochs": epochs, "train.keep": "last"})
    asked = asked.override_all({"augment.policy": "objects"})
    if weights is not None:
        asked = asked.override_all({"model.weights": str(weights), "model.probe": True})
    experiment = resolve(asked, own)
    *_, last = fit(experiment, own)
    scorer = Scorer.from_experiment(experiment, own, torch.device("cpu"))
    return float(scorer.compute_scores(last.model, dataset.test)["accuracy"])


def report(name: str, accuracies: list[float], began: float) -> None:
    mean, deviation = 100 * statistics.mean(accuracies), 100 * statistics.stdev(accuracies)
    print(f"{name:<44} {mean:6.2f} % ± {deviation:4.2f}   {time.perf_counter() - began:6.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="simclr")
    parser.add_argument("--model", default="resnet9_16")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--label-epochs", type=int, default=60)
    parser.add_argument("--skip", nargs="*", default=[], choices=("imagenet", "scratch", "these"))
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/classifier-pretrain"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = fetch_debian("dataset-fashion-mnist", FASHION, arguments.out)
    dataset = data.load(DataConfig(path=str(path)))
    assert dataset.test is not None
    order_N = permutation(len(dataset.train), 0, 0)
    pool_N, candidates_N = order_N[:UNLABELLED], order_N[UNLABELLED:][:CANDIDATES].sort().values
    draws = [draw_labels(dataset, candidates_N, draw) for draw in range(DRAWS)]
    at_N = torch.cat(draws).unique()  # sorted

    given = {"model.name": arguments.model, "train.epochs": arguments.epochs} | dict(arguments.set)
    asked = Experiment().override_all(DEFAULTS | choose_optimizer(arguments.method, given))
    asked = asked.override_all({"model.name": arguments.model, "train.epochs": arguments.epochs})
    for name, value in arguments.set:
        asked = asked.override_text(name, value)
    augment = choose_augment(asked.augment, kind=dataset.kind, channels=dataset.channels, size=dataset.size)
    device = torch.device("cpu")
    precision = choose_precision(asked.train.precision, device)
    asked = replace(asked, augment=augment).override_all({"train.device": "cpu", "train.precision": precision})
    unlabelled = dataset.train.take(pool_N)
    images = PretrainingImages(
        name="fashion",
        kind=dataset.kind,
        images_NCHW=unlabelled.images_NCHW,
        mean=dataset.mean,
        std=dataset.std,
        fingerprint="",
        findings=(),
        labels_N=unlabelled.labels_N,
    )
    torch.manual_seed(0)
    model = models.build(asked.model, classes=2, channels=dataset.channels, size=dataset.size)
    model = model.to(memory_format=torch.channels_last)
    scorer = Scorer(
        class_names=("", ""),
        size=dataset.size,
        mean=dataset.mean,
        std=dataset.std,
        device=device,
        precision=precision,
    )

    def measure(name: str, extract: Callable[[Tensor], Tensor]) -> None:
        features_NF, test_MF = extract(dataset.train.images_NCHW[at_N]), extract(dataset.test.images_NCHW[:])  # pyright: ignore[reportOptionalMemberAccess]
        report(name, [probe(features_NF, dataset, one, at_N, test_MF) for one in draws], began)

    began = time.perf_counter()
    measure("a probe of the network before", lambda images_NCHW: extract_features(model, scorer, images_NCHW))
    began = time.perf_counter()
    for epoch in pretrain(asked, images, model, arguments.method):
        if epoch.number % 5 == 0 or epoch.number == 1:
            print(
                f"  epoch {epoch.number}: loss {epoch.loss:.3f}, nearest neighbours {epoch.neighbours:.2%}, "
                f"{epoch.rank:.0f} dimensions, {epoch.seconds:.1f} s",
                flush=True,
            )
    name = f"a probe of {arguments.model} by {arguments.method}"
    measure(name, lambda images_NCHW: extract_features(model, scorer, images_NCHW))
    weights = arguments.out / "weights.safetensors"
    write_weights(model, weights, arguments.model, arguments.method)
    for start, path in (("scratch", None), ("these", weights)):
        if start not in arguments.skip:
            began = time.perf_counter()
            accuracies = [train_on(dataset, one, arguments.model, arguments.label_epochs, path) for one in draws]
            report(f"{arguments.model} from {start} on {LABELS} a class", accuracies, began)
    if "imagenet" not in arguments.skip:
        began = time.perf_counter()
        backbone = open_pretrained(dataset.size, DataConfig(), "cpu")
        side = backbone.spec.size

        def enlarge(images_NCHW: Tensor) -> Tensor:
            large_NCHW = torch.nn.functional.interpolate(images_NCHW.float(), (side, side), mode="bilinear")
            return large_NCHW.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)

        def extract(images_NCHW: Tensor) -> Tensor:
            parts = images_NCHW.split(256)
            return torch.cat([extract_features(backbone.model, backbone.scorer, enlarge(part)) for part in parts])

        measure(f"a probe of {backbone.description}", extract)


if __name__ == "__main__":
    main()
