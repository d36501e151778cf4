"""Rank pretrained backbones in seconds by a linear classifier on their frozen features, which are cached."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.subset import limit_training_images
from classifier.errors import ConfigError
from classifier.inference.features import (
    extract_features,
    load_features,
    save_features,
    weights_identity,
)
from classifier.inference.logistic_regression import compute_log_loss, fit_logistic_regression
from classifier.inference.scorer import Scorer, find_hits, gather_targets
from classifier.runtime.distributed import pick_device
from classifier.training.state import build_model

# More training images hardly change the ranking, and take much longer.
MAX_IMAGES = 20_000


@dataclass(frozen=True)
class ProbeResult:
    """Validation scores of a linear classifier on a backbone's frozen features."""

    name: str
    weights: str
    accuracy: float
    loss: float
    seconds: float


def parse_backbones(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Parse NAME=WEIGHTS words. ConfigError for any other word."""
    pairs = []
    for word in words:
        name, equals, weights = word.partition("=")
        if not equals or not name or not weights:
            raise ConfigError(
                f"search.probe {word!r}: write NAME=WEIGHTS, such as resnet18=imagenet or timm/NAME=w.pth"
            )
        pairs.append((name, weights))
    return pairs


def rank_backbones(experiment: Experiment, dataset: Dataset, cache_folder: Path) -> list[ProbeResult]:
    """Rank the backbones of search.probe, best first, by validation accuracy, then loss. experiment: resolved.

    cache_folder: of features, which are computed only if they are not there. Errors of models.build.
    """
    backbones = parse_backbones(experiment.search.probe)
    results = [probe_backbone(experiment, dataset, name, weights, cache_folder) for name, weights in backbones]
    return sorted(results, key=lambda result: (-result.accuracy, result.loss))


def probe_backbone(
    experiment: Experiment, dataset: Dataset, name: str, weights: str, cache_folder: Path
) -> ProbeResult:
    """Probe a backbone: logistic regression on standardised features of images without augmentation."""
    started = time.perf_counter()
    experiment = experiment.override("model.name", name).override("model.weights", weights)
    count = max(MAX_IMAGES, len(dataset.class_names))
    train = limit_training_images(dataset, count, seed=0).train if len(dataset.train) > count else dataset.train
    splits = {"train": train, "validation": dataset.validation}
    features = _load_or_extract_features(experiment, dataset, splits, cache_folder)
    mean_F, std_F = features["train"].mean(0), features["train"].std(0).clamp(min=1e-6)
    train_NF, validation_NF = ((features[split] - mean_F) / std_F for split in ("train", "validation"))
    targets, validation_targets = (
        gather_targets(split.labels_N, dataset.label_sets_MK) for split in (train, dataset.validation)
    )
    logits_NK = fit_logistic_regression(train_NF, targets, len(dataset.class_names), task=dataset.task)(validation_NF)
    return ProbeResult(
        name=name,
        weights=weights,
        accuracy=float(find_hits(logits_NK, validation_targets).float().mean()),
        loss=float(compute_log_loss(logits_NK, validation_targets)),
        seconds=time.perf_counter() - started,
    )


def _load_or_extract_features(
    experiment: Experiment, dataset: Dataset, splits: dict[str, Split], cache_folder: Path
) -> dict[str, Tensor]:
    """Return features_NF of each split, float32, the inputs of the model's head; from the cache if they are there."""
    weights = weights_identity(experiment.model.weights)
    key = (experiment.model.name, weights, dataset.fingerprint, dataset.size, "stratified", len(splits["train"]))
    path = cache_folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.safetensors"
    if (stored := load_features(path)) is not None:
        return stored
    device = pick_device(experiment.train.device)
    scorer = Scorer.from_experiment(experiment, dataset, device)
    model = scorer.prepare_model(build_model(experiment, dataset))
    features = {name: extract_features(model, scorer, split.images_NCHW) for name, split in splits.items()}
    save_features(features, path)
    return features
