"""The model that remains of a training with columns: the fusion that was trained, or what was found to be better."""

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.inference.features import extract_features, load_features, save_features
from classifier.inference.logistic_regression import HeldOut
from classifier.inference.permutation_importance import choose_images, measure_importance
from classifier.inference.scorer import Scorer
from classifier.models.fusion.fusion_net import Fusion, FusionNet
from classifier.runtime.distributed import ProcessGroup
from classifier.training.fusion.compare import (
    Compared,
    compare_by_folds,
    compare_on_validation,
    make_fold_answer,
)
from classifier.training.fusion.fit_mlp import FoldFusion
from classifier.training.fusion.inputs import FusionInputs

# Validation images that candidates are compared on.
MAX_VALIDATION = 5000


@dataclass(frozen=True)
class Fused:
    """model: in eval mode; is_trained: whether it is the fusion as it was trained. compared: how it was chosen."""

    model: nn.Module
    compared: Compared

    @property
    def is_trained(self) -> bool:
        return not self.compared.tensors


def fit_by_folds(
    model: FusionNet, experiment: Experiment, dataset: Dataset, features_NB: Tensor, train: Split, folder: Path | None
) -> Compared:
    """Fit the model's fusion to the features of these training images, and compare it with other candidates by folds.

    folder: where the result is kept, and taken from if it is there.
    """
    inputs = _make_inputs(features_NB, train, experiment, dataset)
    file = None if folder is None else folder / f"{_key(inputs, experiment)}-fusion.safetensors"
    stored = None if file is None else load_features(file)
    if stored is None:
        compared, state = compare_by_folds(model.fusion, inputs, experiment.model.fusion)
        if file is not None:
            save_features(_pack(compared, state), file)
    else:
        compared, state = _unpack(stored)
    model.fusion.load_state_dict(state)
    return compared


def measure_importance_by_folds(
    model: FusionNet, experiment: Experiment, dataset: Dataset, features_NB: Tensor, train: Split, compared: Compared
) -> dict[str, Any] | None:
    """Measure what the image and each column bring on the images that were held out; None if none were.

    compared: what fit_by_folds returned for the same model, features and images.
    """
    if not compared.folds or dataset.columns is None:
        return None
    inputs = _make_inputs(features_NB, train, experiment, dataset)
    held_out_M, _ = torch.cat([fold.index_M for fold in compared.folds]).sort()
    columns, has_trees = dataset.columns, bool(compared.tensors)
    index_M = held_out_M[choose_images(len(held_out_M), len(columns.names), has_trees=has_trees)]
    answer, chosen = make_fold_answer(model.fusion, inputs, compared, index_M), inputs.take(index_M)
    return measure_importance(
        answer, chosen.features_NB, chosen.columns_NF, chosen.targets, columns, dataset.task, has_trees=has_trees
    )


def fit_finally(
    model: FusionNet,
    experiment: Experiment,
    dataset: Dataset,
    scorer: Scorer,
    group: ProcessGroup,
    features_NB: Tensor,
    train: Split,
) -> Compared:
    """Compare a model that was trained in steps with other candidates on validation images, on every rank.

    features_NB: of `train`, those training images to which the candidates are fitted.
    """
    validation = dataset.validation
    if len(validation) > MAX_VALIDATION:
        validation = validation.take(torch.arange(0, len(validation), -(-len(validation) // MAX_VALIDATION)))
    judged = None
    if len(validation):
        judged_NB = extract_shared(model, scorer, validation, group)
        judged = _make_inputs(judged_NB, validation, experiment, dataset)
    inputs = _make_inputs(features_NB, train, experiment, dataset)
    fusion = copy.deepcopy(model.fusion).cpu()
    wanted = experiment.model.fusion
    return group.broadcast(compare_on_validation(fusion, inputs, judged, wanted) if group.is_first else None)


def conclude(model: nn.Module, compared: Compared) -> Fused:
    """Return a copy of the model that answers by the candidate that was chosen; the model itself, if that is its own
    head."""
    if not compared.tensors:
        return Fused(model, compared)
    copied = copy.deepcopy(model)
    assert isinstance(copied, FusionNet)
    install(copied.fusion, compared)
    return Fused(copied.eval(), compared)


def install(fusion: Fusion, compared: Compared) -> Fusion:
    """Let the candidate that was chosen answer in place of the fusion's head, and return the fusion in eval mode."""
    fusion.candidate = fusion.make_candidate(compared.tensors)
    return fusion.eval()


def extract_shared(model: nn.Module, scorer: Scorer, split: Split, group: ProcessGroup) -> Tensor:
    """Return features_NF of the images of a split, float32 on the CPU, equal on every rank; each computes a shard."""
    model.eval()
    if group.world_size == 1 or len(split) < group.world_size:  # with fewer images than ranks a shard would be empty
        return extract_features(model, scorer, split.images_NCHW)
    shard_M = torch.arange(group.rank, len(split), group.world_size)
    features_MF = extract_features(model, scorer, split.images_NCHW[shard_M])
    features_NF = torch.zeros(len(split), features_MF.shape[1])
    features_NF[shard_M] = features_MF
    return group.all_reduce_sum(features_NF).cpu()


def _make_inputs(features_NB: Tensor, split: Split, experiment: Experiment, dataset: Dataset) -> FusionInputs:
    adjustment = experiment.loss.adjustment
    return FusionInputs.from_split(features_NB, split, dataset, seed=experiment.seed, adjustment=adjustment)


def _key(inputs: FusionInputs, experiment: Experiment) -> str:
    """Identify what was fitted, and how."""
    model, hasher = experiment.model, hashlib.sha256()
    settings = (model.fusion, model.modality_dropout, model.dropout, inputs.seed, inputs.adjustment, inputs.task)
    hasher.update(repr((*settings, inputs.classes, "with folds")).encode())
    units = [] if inputs.units_N is None else [inputs.units_N]
    for tensor in (inputs.features_NB, inputs.columns_NF, inputs.targets, *units):
        hasher.update(tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()[:16]


def _pack(compared: Compared, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return all of it as tensors, for a file."""
    about = json.dumps({"name": compared.name, "scores": compared.scores}).encode()
    packed = {"about": torch.tensor(list(about), dtype=torch.uint8)}
    packed |= {f"state.{name}": tensor for name, tensor in state.items()}
    packed |= {f"tensors.{name}": tensor for name, tensor in compared.tensors.items()}
    if (held_out := compared.held_out) is not None:
        packed |= {"logits": held_out.logits_MK, "targets": held_out.targets}
    for n, fold in enumerate(compared.folds):
        packed |= {f"fold{n}.{name}": tensor for name, tensor in fold.state.items()} | {f"index{n}": fold.index_M}
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def _unpack(packed: dict[str, Tensor]) -> tuple[Compared, dict[str, Tensor]]:
    about: dict[str, Any] = json.loads(bytes(packed["about"].tolist()))
    parts: dict[str, dict[str, Tensor]] = {"state": {}, "tensors": {}}
    for name, tensor in packed.items():
        part, dot, rest = name.partition(".")
        if dot:
            parts.setdefault(part, {})[rest] = tensor
    held_out = HeldOut(packed["logits"], packed["targets"]) if "logits" in packed else None
    count = sum(name.startswith("index") for name in packed)
    folds = tuple(FoldFusion(packed[f"index{n}"], parts[f"fold{n}"]) for n in range(count))
    return Compared(about["name"], held_out, parts["tensors"], about["scores"], folds), parts["state"]
