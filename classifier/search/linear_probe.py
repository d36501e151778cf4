"""Rank pretrained backbones in seconds: frozen features, computed once and kept, and a linear classifier on them."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.errors import ConfigError
from classifier.inference.features import extract_features, weights_identity, save_features, fit_logistic_regression
from classifier.inference.scorer import Scorer
from classifier.runtime.distributed import pick_device
from classifier.training.state import build_model

# More images than this change the ranking little and cost much.
MOST = 20_000


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier on a backbone's frozen features does on the validation images."""

    name: str
    weights: str
    accuracy: float
    loss: float
    seconds: float


def parsed(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """NAME=WEIGHTS words. ConfigError on one that is not."""
    pairs = []
    for word in words:
        name, equals, weights = word.partition("=")
        if not equals or not name or not weights:
            raise ConfigError(f"search.probe {word!r}: write NAME=WEIGHTS, as resnet18=imagenet or timm/NAME=w.pth")
        pairs.append((name, weights))
    return pairs


def ranked(experiment: Experiment, dataset: Dataset, kept: Path) -> list[Probe]:
    """The backbones of search.probe, best first by validation accuracy, then loss. experiment: resolved.

    kept: the folder of features; what lies there is not computed again. Errors of models.build and its weights.
    """
    probes = [probe(experiment, dataset, name, weights, kept) for name, weights in parsed(experiment.search.probe)]
    return sorted(probes, key=lambda one: (-one.accuracy, one.loss))


def probe(experiment: Experiment, dataset: Dataset, name: str, weights: str, kept: Path) -> Probe:
    """One backbone's probe: multinomial logistic regression on standardised features of plain images."""
    began = time.perf_counter()
    experiment = experiment.override("model.name", name).override("model.weights", weights)
    train = dataset.train
    train = Split(train.images_NCHW[:MOST], train.labels_N[:MOST], train.ids[:MOST])
    found = _features(experiment, dataset, {"train": train, "validation": dataset.validation}, kept)
    mean_F, std_F = found["train"].mean(0), found["train"].std(0).clamp(min=1e-6)
    train_NF, validation_NF = ((found[split] - mean_F) / std_F for split in ("train", "validation"))
    weight_KF, bias_K = fit_logistic_regression(train_NF, train.labels_N, len(dataset.class_names))
    log_probabilities_NK = (validation_NF @ weight_KF.T + bias_K).log_softmax(1)
    labels_N = dataset.validation.labels_N
    return Probe(
        name=name,
        weights=weights,
        accuracy=float((log_probabilities_NK.argmax(1) == labels_N).float().mean()),
        loss=float(torch.nn.functional.nll_loss(log_probabilities_NK, labels_N)),
        seconds=time.perf_counter() - began,
    )


def _features(experiment: Experiment, dataset: Dataset, parts: dict[str, Split], kept: Path) -> dict[str, Tensor]:
    """features_NF of each part, float32: what goes into the model's head. From disk, where they were kept."""
    from safetensors.torch import load_file

    settings = (experiment.model.name, weights_identity(experiment.model.weights), dataset.fingerprint, dataset.size, MOST)
    path = kept / f"{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        return load_file(path)
    device = pick_device(experiment.train.device)
    scorer = Scorer.from_experiment(experiment, dataset, device)
    model = scorer.prepare_model(build_model(experiment, dataset))
    found = {split: extract_features(model, scorer, part.images_NCHW) for split, part in parts.items()}
    save_features(found, path)
    return found
