"""Fit a model's head to the features of its backbone: the first stage of LP-FT, and a model of its own in seconds."""

import copy
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.subset import limit_training_images
from classifier.errors import ModelError
from classifier.inference.features import load_features, save_features, weights_identity
from classifier.inference.logistic_regression import HeldOut, LinearProbe, compute_log_loss, fit_linear_probe
from classifier.inference.propagated_probe import PropagatedProbe, fit_propagated_probe
from classifier.inference.scorer import Scorer, find_hits, gather_targets
from classifier.models import head_modules
from classifier.models.fusion.fusion_net import FusionNet
from classifier.runtime.counter_rng import permutation
from classifier.runtime.distributed import ProcessGroup
from classifier.training.fusion.compare import Compared
from classifier.training.fusion.conclude import extract_shared, fit_by_folds, install

# Bounds on the time that features take; a class has this many images at least, where it has them.
MAX_IMAGES, MAX_CLASS_IMAGES = 5000, 20


@dataclass(frozen=True)
class HeadProbe:
    """How well a fitted head does: on the images that it was fitted to, as sums over all ranks, and by cross-validation
    (held_out), or None. compared: of a model with columns, how its head was chosen."""

    held_out: HeldOut | None
    loss: float
    hits: int
    images: int
    compared: Compared | None = None


def fit_head(
    model: nn.Module,
    experiment: Experiment,
    dataset: Dataset,
    scorer: Scorer,
    group: ProcessGroup | None = None,
    folder: Path | None = None,
) -> HeadProbe:
    """Set the model's head to a logistic regression on the features of the training images, on every rank; that of
    ordered grades to a proportional odds model. Where columns join the image, all that comes after the backbone is
    fitted, and compared with other candidates (fusion/compare.py).

    Linear probing, then fine-tuning: Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022. The images are
    not augmented; of more than MAX_IMAGES a stratified part is used. Unlabelled ones take part by label propagation,
    unless that hurts. folder: where the features are kept for other trainings on these images, if anywhere. ModelError
    if the model's head is not one linear layer.
    """
    if isinstance(model, FusionNet):
        return _fit_fusion(model, experiment, dataset, scorer, group or ProcessGroup(), folder)
    heads = list(head_modules(model).values())
    if len(heads) != 1 or not isinstance(heads[0], nn.Linear) or heads[0].bias is None:
        raise ModelError("model.probe: the head of this model is not one linear layer: leave model.probe out")
    group = group or ProcessGroup()
    train, label_sets_MK = select_images(dataset), dataset.label_sets_MK
    features_NF = compute_features(model, experiment, dataset, scorer, group, folder)
    unlabelled_MF = compute_unlabelled(model, experiment, dataset, scorer, folder)
    probe = fit_probe(features_NF, dataset, experiment.loss.adjustment, unlabelled_MF)
    with torch.no_grad():
        for parameter, fitted in zip(heads[0].parameters(), probe.head.parameters, strict=True):
            parameter.copy_(fitted)
    logits_NK = probe.head(features_NF)
    return _score(probe.held_out, logits_NK, gather_targets(train.labels_N, label_sets_MK))


def fit_probe(
    features_NF: Tensor, dataset: Dataset, adjustment: float = 0.0, unlabelled_MF: Tensor | None = None
) -> LinearProbe:
    """Fit a linear probe to features of `select_images`, and to unlabelled ones if there are any and they do not hurt.

    adjustment: loss.adjustment.
    """
    if unlabelled_MF is not None:
        return fit_propagated(features_NF, dataset, adjustment, unlabelled_MF).probe
    train = select_images(dataset)
    return fit_linear_probe(
        features_NF,
        train.labels_N,
        len(dataset.class_names),
        adjustment,
        dataset.task,
        dataset.label_sets_MK,
        train.units_N,
    )


def fit_propagated(features_NF: Tensor, dataset: Dataset, adjustment: float, unlabelled_MF: Tensor) -> PropagatedProbe:
    """Fit a probe with unlabelled images and one without, and compare them."""
    train = select_images(dataset)
    labels_N, classes = train.labels_N, len(dataset.class_names)
    return fit_propagated_probe(features_NF, labels_N, classes, unlabelled_MF, adjustment, train.units_N)


def _fit_fusion(
    model: FusionNet,
    experiment: Experiment,
    dataset: Dataset,
    scorer: Scorer,
    group: ProcessGroup,
    folder: Path | None,
) -> HeadProbe:
    train = select_images(dataset)
    features_NF = compute_features(model, experiment, dataset, scorer, group, folder)
    compared = fit_by_folds(model, experiment, dataset, features_NF, train, folder) if group.is_first else None
    compared = group.broadcast(compared)
    if group.world_size > 1:
        state = group.broadcast({name: tensor.cpu() for name, tensor in model.fusion.state_dict().items()})
        model.fusion.load_state_dict(state)
    fitted = install(copy.deepcopy(model.fusion).cpu(), compared)
    with torch.no_grad():
        logits_NK = fitted(features_NF, train.columns_NF)
    score = _score(compared.held_out, logits_NK, gather_targets(train.labels_N, dataset.label_sets_MK))
    return dataclasses.replace(score, compared=compared)


def _score(held_out: HeldOut | None, logits_NK: Tensor, targets: Tensor) -> HeadProbe:
    loss, hits = compute_log_loss(logits_NK, targets), find_hits(logits_NK, targets)
    return HeadProbe(held_out, len(targets) * float(loss), int(hits.sum()), len(targets))


def count_images(dataset: Dataset) -> int:
    """Return how many training images `fit_head` uses."""
    return min(len(dataset.train), max(MAX_IMAGES, MAX_CLASS_IMAGES * len(dataset.class_names)))


def count_unlabelled(dataset: Dataset) -> int:
    """Return how many unlabelled images `fit_head` uses."""
    return 0 if dataset.unlabelled is None else min(MAX_IMAGES, len(dataset.unlabelled))


def select_images(dataset: Dataset) -> Split:
    """Return the training images that a probe is fitted to: of very many a stratified part."""
    count = count_images(dataset)
    return limit_training_images(dataset, count, seed=0).train if len(dataset.train) > count else dataset.train


def compute_unlabelled(
    model: nn.Module, experiment: Experiment, dataset: Dataset, scorer: Scorer, folder: Path | None = None
) -> Tensor | None:
    """Return features_MF of the unlabelled images, of very many a part; None if there are none. folder: as above."""
    if dataset.unlabelled is None:
        return None
    split, key = dataset.unlabelled, f"{_features_key(experiment, dataset, scorer)}-{dataset.unlabelled_fingerprint}"
    if (count := count_unlabelled(dataset)) < len(split):
        split = split.take(permutation(len(split), 0, 0)[:count].sort().values)
    file = None if folder is None else folder / f"{key}-probe.safetensors"
    stored = None if file is None else load_features(file)
    if stored is not None and len(stored["features"]) == len(split):
        return stored["features"]
    features_MF = extract_shared(model, scorer, split, ProcessGroup())
    if file is not None:
        save_features({"features": features_MF}, file)
    return features_MF


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
    features_NF = extract_shared(model, scorer, train, group)
    if file is not None and group.is_first:
        save_features({"features": features_NF}, file)
    return features_NF


def _features_key(experiment: Experiment, dataset: Dataset, scorer: Scorer) -> str:
    """Identify the backbone and its input."""
    model = experiment.model
    settings = (model.name, model.norm, model.stem, weights_identity(model.weights), dataset.fingerprint)
    return hashlib.sha256(repr((*settings, scorer.size, scorer.precision)).encode()).hexdigest()[:16]
