"""Fit a model's head to the features of its backbone: the first stage of LP-FT, and a model of its own in seconds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.subset import limit_training_images
from classifier.errors import ModelError
from classifier.inference.features import extract_features, load_features, save_features, weights_identity
from classifier.inference.logistic_regression import LinearProbe, compute_log_loss, fit_linear_probe
from classifier.inference.scorer import Scorer, find_hits, gather_targets
from classifier.models import head_modules
from classifier.runtime.distributed import ProcessGroup

# Bounds on the time that features take; a class has this many images at least, where it has them.
MAX_IMAGES, MAX_CLASS_IMAGES = 5000, 20


@dataclass(frozen=True)
class HeadProbe:
    """A linear probe, and how well it fits the images that it was fitted to: sums over all ranks."""

    probe: LinearProbe
    loss: float
    hits: int
    images: int


def fit_head(
    model: nn.Module,
    experiment: Experiment,
    dataset: Dataset,
    scorer: Scorer,
    group: ProcessGroup | None = None,
    folder: Path | None = None,
) -> HeadProbe:
    """Set the model's head to a logistic regression on the features of the training images, on every rank; that of
    ordered grades to a proportional odds model.

    Linear probing, then fine-tuning: Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022. The images are
    not augmented; of more than MAX_IMAGES a stratified part is used. folder: where the features are kept for other
    trainings on these images, if anywhere. ModelError if the model's head is not one linear layer.
    """
    heads = list(head_modules(model).values())
    if len(heads) != 1 or not isinstance(heads[0], nn.Linear) or heads[0].bias is None:
        raise ModelError("model.probe: the head of this model is not one linear layer: leave model.probe out")
    group = group or ProcessGroup()
    labels_N, label_sets_MK = select_images(dataset).labels_N, dataset.label_sets_MK
    features_NF = compute_features(model, experiment, dataset, scorer, group, folder)
    classes, adjustment = len(dataset.class_names), experiment.loss.adjustment
    probe = fit_linear_probe(features_NF, labels_N, classes, adjustment, dataset.task, label_sets_MK)
    with torch.no_grad():
        for parameter, fitted in zip(heads[0].parameters(), probe.head.parameters, strict=True):
            parameter.copy_(fitted)
    logits_NK = probe.head(features_NF)
    targets, images = gather_targets(labels_N, label_sets_MK), len(labels_N)
    loss, hits = compute_log_loss(logits_NK, targets), find_hits(logits_NK, targets)
    return HeadProbe(probe, images * float(loss), int(hits.sum()), images)


def count_images(dataset: Dataset) -> int:
    """Return how many training images `fit_head` uses."""
    return min(len(dataset.train), max(MAX_IMAGES, MAX_CLASS_IMAGES * len(dataset.class_names)))


def select_images(dataset: Dataset) -> Split:
    """Return the training images that a probe is fitted to: of very many a stratified part."""
    count = count_images(dataset)
    return limit_training_images(dataset, count, seed=0).train if len(dataset.train) > count else dataset.train


def compute_features(
    model: nn.Module,
    experiment: Experiment,
    dataset: Dataset,
    scorer: Scorer,
    group: ProcessGroup | None = None,
    folder: Path | None = None,
) -> Tensor:
    """Return features_NF of `select_images`, float32 on the CPU, equal on every rank; each computes a shard.

    folder: where they are kept, and taken from if they are there.
    """
    group, train = group or ProcessGroup(), select_images(dataset)
    file = None if folder is None else folder / f"{_features_key(experiment, dataset, scorer)}-probe.safetensors"
    stored = load_features(file) if file is not None and group.world_size == 1 else None
    if stored is not None and len(stored["features"]) == len(train):
        return stored["features"]
    model.eval()
    if group.world_size == 1 or len(train) < group.world_size:  # with fewer images than ranks a shard would be empty
        features_NF = extract_features(model, scorer, train.images_NCHW)
    else:
        shard_M = torch.arange(group.rank, len(train), group.world_size)
        features_MF = extract_features(model, scorer, train.images_NCHW[shard_M])
        features_NF = torch.zeros(len(train), features_MF.shape[1])
        features_NF[shard_M] = features_MF
        features_NF = group.all_reduce_sum(features_NF).cpu()
    if file is not None and group.is_first:
        save_features({"features": features_NF}, file)
    return features_NF


def _features_key(experiment: Experiment, dataset: Dataset, scorer: Scorer) -> str:
    """Identify the backbone and its input."""
    model = experiment.model
    settings = (model.name, model.norm, model.stem, weights_identity(model.weights), dataset.fingerprint)
    return hashlib.sha256(repr((*settings, scorer.size, scorer.precision)).encode()).hexdigest()[:16]
