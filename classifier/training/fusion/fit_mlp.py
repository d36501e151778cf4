"""The head and hidden layer of a fusion, fitted to the features of a frozen backbone.

A logistic regression on features, columns and flags comes first. From there Adam trains the whole fusion, as long as
held-out images gain by that: not at all where they do not.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from classifier.inference.logistic_regression import (
    Head,
    HeldOut,
    LinearProbe,
    compute_log_loss,
    fit_linear_probe,
    rank,
)
from classifier.models.fusion.fusion_net import Fusion
from classifier.runtime.eager_optimizer import Adam
from classifier.training.fusion.inputs import FusionInputs

# How many times as large columns are made, beside features that are scaled to 1: there are more features than columns,
# and the penalty is the same.
COLUMN_SCALES = (1.0, 3.0, 10.0)
# Steps of Adam after which held-out images are asked.
STEPS, BATCH, LEARNING_RATE, HIDDEN_PENALTY = (0, 50, 200), 256, 3e-3, 1e-3
# Features that hardly vary are left as they are.
MIN_SCALE = 1e-6


class FoldFusion(NamedTuple):
    """The state of the Fusion of a fold: fitted to all images but those of index_M."""

    index_M: Tensor
    state: dict[str, Tensor]


@dataclass(frozen=True)
class FittedMlp:
    """state: of Fusion; held_out: by cross-validation, or None if no class has two images; folds: what answered."""

    state: dict[str, Tensor]
    held_out: HeldOut | None
    folds: tuple[FoldFusion, ...] = ()


def fit_mlp(fusion: Fusion, inputs: FusionInputs) -> FittedMlp:
    """Fit a copy of the fusion to these images; the fusion stays as it is. Deterministic."""
    scaling = _Scaling.of(inputs)
    scaled = scaling.apply(inputs)
    template = copy.deepcopy(fusion).cpu().float()
    template.candidate = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs.seed)
        template.image_layer.reset_parameters()
        template.table_layer.reset_parameters()
        nn.init.zeros_(template.missing_image)
        probe, column_scale = _fit_linear(template, scaled)
        by_steps: dict[int, list[Tensor]] = {steps: [] for steps in STEPS}
        folds: dict[int, list[FoldFusion]] = {steps: [] for steps in STEPS}
        for fold in probe.folds:
            is_trained_N = torch.ones(len(inputs), dtype=torch.bool)
            is_trained_N[fold.index_M] = False
            held = scaled.take(fold.index_M)
            start = _start(template, fold.head, column_scale)
            for steps, trained in _train(start, scaled.take(is_trained_N), probe.penalty):
                by_steps[steps].append(_answer(trained, held))
                folds[steps].append(FoldFusion(fold.index_M, scaling.fold_in(trained, inputs.offsets)))
        held_out, steps = None, 0
        if probe.folds:
            index_M, order_M = torch.cat([fold.index_M for fold in probe.folds]).sort()
            results = {
                steps: HeldOut(torch.cat(parts)[order_M] - inputs.offsets, inputs.targets[index_M])
                for steps, parts in by_steps.items()
            }
            steps = max(results, key=lambda one: rank(results[one], inputs.task))
            held_out = results[steps]
        start = _start(template, probe.head, column_scale)
        fitted = next(trained for done, trained in _train(start, scaled, probe.penalty, steps) if done == steps)
    return FittedMlp(scaling.fold_in(fitted, inputs.offsets), held_out, tuple(folds[steps]))


@dataclass(frozen=True)
class _Scaling:
    """Features less their mean, by their scale as one: the variances of single ones are noise where images are few."""

    mean_B: Tensor
    scale: Tensor

    @classmethod
    def of(cls, inputs: FusionInputs) -> "_Scaling":
        features_MB = inputs.of_images.features_NB
        mean_B = features_MB.mean(0)
        return cls(mean_B, (features_MB - mean_B).square().mean().sqrt().clamp(min=MIN_SCALE))

    def apply(self, inputs: FusionInputs) -> FusionInputs:
        return replace(inputs, features_NB=(inputs.features_NB - self.mean_B) / self.scale)

    def fold_in(self, fusion: Fusion, offsets_K: Tensor) -> dict[str, Tensor]:
        """Return the state of a fusion that takes features as they are, and has these offsets in its logits."""
        state = {name: tensor.clone() for name, tensor in fusion.state_dict().items()}
        for layer in ("image_layer", "head"):
            weight_XB = state[f"{layer}.weight"][:, : fusion.features]
            weight_XB /= self.scale
            state[f"{layer}.bias"] -= weight_XB @ self.mean_B
        if len(state["head.bias"]) == len(offsets_K):  # not of ordered grades
            state["head.bias"] -= offsets_K
        state["missing_image"] = state["missing_image"] * self.scale + self.mean_B
        return state


def _fit_linear(fusion: Fusion, inputs: FusionInputs) -> tuple[LinearProbe, float]:
    """Return the best logistic regression of those with more or less weight on the columns, and that weight."""
    with torch.no_grad():
        joined_NI = fusion.join(inputs.features_NB, inputs.has_image, inputs.values)
    probes = {}
    for column_scale in COLUMN_SCALES:
        scaled_NI = joined_NI.clone()
        scaled_NI[:, fusion.features :] *= column_scale
        probes[column_scale] = fit_linear_probe(
            scaled_NI,
            inputs.labels,
            inputs.classes,
            task=inputs.task,
            label_sets_MK=inputs.label_sets,
            units_N=inputs.units_N,
        )
    held_out = {scale: probe.held_out for scale, probe in probes.items()}
    best = max(probes, key=lambda scale: (0.0, 0.0) if (one := held_out[scale]) is None else rank(one, inputs.task))
    return probes[best], best


def _start(template: Fusion, head: Head, column_scale: float) -> Fusion:
    """Return the fusion with this linear model, of which the hidden layer is no part yet."""
    fusion = copy.deepcopy(template)
    weight_KI = head.weight_KF.clone()
    weight_KI[:, fusion.features :] *= column_scale
    with torch.no_grad():
        fusion.head.weight.zero_()
        fusion.head.weight[:, : weight_KI.shape[1]] = weight_KI
        _, *others = fusion.head.parameters()
        for parameter, fitted in zip(others, head.parameters[1:], strict=True):
            parameter.copy_(fitted)
    return fusion


def _train(
    fusion: Fusion, inputs: FusionInputs, penalty: float, until: int | None = None
) -> Iterator[tuple[int, Fusion]]:
    """Train the fusion in place, and yield it after each of STEPS."""
    torch.manual_seed(inputs.seed)
    optimizer = Adam(fusion.parameters(), lr=LEARNING_RATE)
    batches = _draw_batches(len(inputs))
    for step in range((max(STEPS) if until is None else until) + 1):
        if step in STEPS:
            yield step, fusion.eval()
        fusion.train().requires_grad_(True)
        batch = inputs.take(next(batches))
        optimizer.zero_grad()
        loss = compute_log_loss(fusion(batch.features_NB, batch.columns_NF), batch.targets)
        if inputs.is_multilabel:
            loss = inputs.classes * loss
        layers = (fusion.image_layer, fusion.table_layer)
        penalties = HIDDEN_PENALTY * torch.stack([layer.weight.square().sum() for layer in layers]).sum()
        (loss + penalties + penalty * fusion.head.weight.square().sum()).backward()
        optimizer.step()


def _draw_batches(count: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(count).split(BATCH)


def _answer(fusion: Fusion, inputs: FusionInputs) -> Tensor:
    with torch.no_grad():
        return fusion(inputs.features_NB, inputs.columns_NF).clone()
