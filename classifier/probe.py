"""Rank pretrained backbones in seconds: frozen features, computed once and kept, and a linear classifier on them."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from classifier import models
from classifier.config import Experiment
from classifier.data.dataset import Dataset, Part
from classifier.distributed import pick_device
from classifier.errors import ConfigError
from classifier.evaluate import Scorer
from classifier.files import sha256_of
from classifier.training import build_model

# More images than this change the ranking little and cost much.
MOST = 20_000
# L2 penalty of the regression, on standardised features.
PENALTY = 1e-2


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
    train = Part(train.images_NCHW[:MOST], train.labels_N[:MOST], train.ids[:MOST])
    found = _features(experiment, dataset, {"train": train, "validation": dataset.validation}, kept)
    mean_F, std_F = found["train"].mean(0), found["train"].std(0).clamp(min=1e-6)
    train_NF, validation_NF = ((found[split] - mean_F) / std_F for split in ("train", "validation"))
    weight_KF, bias_K = _regression(train_NF, train.labels_N, len(dataset.class_names))
    log_probabilities_NK = (validation_NF @ weight_KF.T + bias_K).log_softmax(1)
    labels_N = dataset.validation.labels_N
    return Probe(
        name=name,
        weights=weights,
        accuracy=float((log_probabilities_NK.argmax(1) == labels_N).float().mean()),
        loss=float(torch.nn.functional.nll_loss(log_probabilities_NK, labels_N)),
        seconds=time.perf_counter() - began,
    )


def _regression(train_NF: Tensor, labels_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights and biases of the logistic regression with an L2 penalty, by L-BFGS."""
    weight_KF = torch.zeros(classes, train_NF.shape[1], requires_grad=True)
    bias_K = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_KF, bias_K], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(train_NF @ weight_KF.T + bias_K, labels_N)
        loss = loss + PENALTY * weight_KF.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return weight_KF.detach(), bias_K.detach()


def _features(experiment: Experiment, dataset: Dataset, parts: dict[str, Part], kept: Path) -> dict[str, Tensor]:
    """features_NF of each part, float32: what goes into the model's head. From disk, where they were kept."""
    from safetensors.torch import load_file, save_file

    settings = (experiment.model.name, _identity(experiment.model.weights), dataset.fingerprint, dataset.size, MOST)
    path = kept / f"{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        return load_file(path)
    device = pick_device(experiment.train.device)
    scorer = Scorer.of(experiment, dataset, device)
    model = scorer.place(build_model(experiment, dataset))
    # Auxiliary heads come after the head, and are silent in eval mode.
    head = next(iter(models.head_modules(model).values()))
    taken: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].flatten(1).float().cpu()))
    found = {}
    for split, part in parts.items():
        taken.clear()
        for images_NCHW in part.images_NCHW.split(scorer.batch):
            scorer.log_probabilities(model, images_NCHW)
        # With mirrored views, each batch has passed twice: the plain view is the first.
        every = taken[:: 2 if scorer.test_flip else 1]
        found[split] = torch.cat(every).clone()
    hook.remove()
    kept.mkdir(parents=True, exist_ok=True)
    part_path = path.with_suffix(".part")
    save_file(found, part_path)
    part_path.replace(path)
    return found


def _identity(weights: str | None) -> str:
    """What names the weights: a file by its content."""
    return sha256_of(Path(weights)) if weights is not None and Path(weights).is_file() else str(weights)
