"""The choice among models that join image and columns: the best on held-out images is kept.

mlp is the fusion's own head (fit_mlp.py), trees are decision trees over the image's main components and the columns,
and average is the mean of the probabilities of that head and of trees over the columns. A linear model of the image and
trees over the columns are scored beside them, to tell what joining them brings.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classifier.inference.logistic_regression import (
    FOLDS,
    HeldOut,
    LinearProbe,
    assign_folds,
    find_held_out,
    fit_linear_probe,
    rank,
)
from classifier.models.fusion.candidates import TREES, average, make_candidate, project
from classifier.models.fusion.fusion_net import Fusion
from classifier.training.fusion.fit_mlp import FoldFusion, fit_mlp
from classifier.training.fusion.grow_trees import grow_trees
from classifier.training.fusion.inputs import FusionInputs

CANDIDATES = ("mlp", "trees", "average")
# Weights of the fusion's head that are tried in an average.
WEIGHTS = tuple(round(0.1 * n, 1) for n in range(1, 10))
# Of the features of an image, for trees: among more, columns would be found too rarely.
MAX_COMPONENTS = 16
# A candidate replaces a model that was trained in steps if its mean log loss is lower by so many standard errors.
MIN_GAIN_ERRORS = 1.64


@dataclass(frozen=True)
class Compared:
    """name: of the candidate that was chosen; held_out: its answers to held-out images, or None where there are none.

    tensors: of the module that answers in place of the fusion's head, none of an mlp. scores: `accuracy` and `loss` of
    each candidate, of `image` and `columns` alone, on how many `images`: plain data for result.json. folds: the heads
    that were fitted by folds, if any were.
    """

    name: str
    held_out: HeldOut | None
    tensors: dict[str, Tensor]
    scores: dict[str, Any]
    folds: tuple[FoldFusion, ...] = ()


def compare_by_folds(fusion: Fusion, inputs: FusionInputs, wanted: str = "auto") -> tuple[Compared, dict[str, Tensor]]:
    """Compare the candidates by stratified cross-validation, and fit the best one to all images; also return the state
    of the fitted fusion, which gives the gradients of any candidate.

    wanted: model.fusion. Where no class has two images, auto is mlp. Deterministic.
    """
    mlp = fit_mlp(fusion, inputs)
    if mlp.held_out is None:
        return _choose_unseen(inputs, wanted), mlp.state
    folds_N = assign_folds(inputs.strata_N, FOLDS, inputs.units_N)
    held_out_M = find_held_out(inputs.strata_N, inputs.units_N)
    parts: dict[str, list[Tensor]] = {"columns": [], "trees": []}
    indices = []
    for fold in folds_N[held_out_M].unique():
        index_M = torch.nonzero(folds_N == fold)[:, 0]
        indices.append(index_M)
        for name, logits_MK in _ask_trees(inputs.take(folds_N != fold), inputs.take(index_M)).items():
            parts[name].append(logits_MK)
    index_M, order_M = torch.cat(indices).sort()
    results = {name: HeldOut(torch.cat(part)[order_M], inputs.targets[index_M]) for name, part in parts.items()}
    if (image := _fit_image(inputs).held_out) is not None:
        results["image"] = image
    results["mlp"] = mlp.held_out
    weight, results["average"] = _weigh(mlp.held_out, results["columns"], inputs.is_multilabel)
    name = max(CANDIDATES, key=lambda one: rank(results[one], inputs.task)) if wanted == "auto" else wanted
    tensors, scores = _make_tensors(name, inputs, weight), _describe(name, results, weight)
    return Compared(name, results[name], tensors, scores, mlp.folds), mlp.state


def make_fold_answer(
    fusion: Fusion, inputs: FusionInputs, compared: Compared, index_M: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what answers images that were held out, each by the model of its fold: a function of features_MB and
    columns_MF to logits_MK. index_M: which images, in this order. The trees of the folds are grown again, as they
    were."""
    parts = []
    for fold in compared.folds:
        is_trained_N = torch.ones(len(inputs), dtype=torch.bool)
        is_trained_N[fold.index_M] = False
        own = copy.deepcopy(fusion).cpu().float()
        own.load_state_dict(fold.state)
        tensors = _make_tensors(compared.name, inputs.take(is_trained_N), compared.scores.get("weight", 0.0))
        own.candidate = own.make_candidate(tensors)
        parts.append((torch.nonzero(~is_trained_N[index_M])[:, 0], own.eval()))
    order_M = torch.cat([at for at, _ in parts]).argsort()

    def answer(features_MB: Tensor, columns_MF: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([own(features_MB[at], columns_MF[at]) for at, own in parts])[order_M]

    return answer


def compare_on_validation(
    fusion: Fusion, inputs: FusionInputs, validation: FusionInputs | None, wanted: str = "auto"
) -> Compared:
    """Compare a fusion that was trained in steps with candidates that are fitted to the features of its backbone.

    inputs: of training images, to which the candidates are fitted; validation: of those that they are compared on, if
    there are any. auto: one replaces the fusion only if it is clearly better, by accuracy and log loss.
    """
    if validation is None:
        return _choose_unseen(inputs, wanted)
    answers = _ask_trees(inputs, validation)
    answers["image"] = _fit_image(inputs).head(validation.features_NB)
    with torch.no_grad():
        answers["mlp"] = fusion.eval()(validation.features_NB, validation.columns_NF)
    results = {name: HeldOut(logits_MK, validation.targets) for name, logits_MK in answers.items()}
    weight, results["average"] = _weigh(results["mlp"], results["columns"], inputs.is_multilabel)
    name = wanted
    if wanted == "auto":
        best = max(("trees", "average"), key=lambda one: rank(results[one], inputs.task))
        name = best if _is_clearly_better(results[best], results["mlp"]) else "mlp"
    return Compared(name, results[name], _make_tensors(name, inputs, weight), _describe(name, results, weight))


def _choose_unseen(inputs: FusionInputs, wanted: str) -> Compared:
    """Choose without images that were held out."""
    name = "mlp" if wanted == "auto" else wanted
    return Compared(name, None, _make_tensors(name, inputs, 0.5), {"chosen": name, "images": 0})


def _make_tensors(name: str, inputs: FusionInputs, weight: float) -> dict[str, Tensor]:
    """Return the tensors of a candidate (models/fusion/candidates.py), fitted to these images; none of the head alone.

    weight: of the head, in an average.
    """
    if name == "mlp":
        return {}
    if name == "average":
        own, values_NF = {"weight": torch.tensor(weight)}, inputs.values
    else:
        own = {"projection": find_components(inputs.of_images.features_NB)}
        components_NP = project(inputs.features_NB, own["projection"]).masked_fill(~inputs.has_image, float("nan"))
        values_NF = torch.cat([components_NP, inputs.values], 1)
    trees = {f"{TREES}{key}": tensor for key, tensor in grow_trees(values_NF, inputs).items()}
    return trees | own | {"offset": inputs.offsets}


def find_components(features_NB: Tensor) -> Tensor:
    """Return projection_PB to the main components of features, those of the largest variance first; without the mean,
    which trees do not need."""
    centred_NB = (features_NB - features_NB.mean(0)).double()
    count = min(MAX_COMPONENTS, *centred_NB.shape)
    if len(centred_NB) >= centred_NB.shape[1]:
        vectors_BB = torch.linalg.eigh(centred_NB.T @ centred_NB).eigenvectors
        return vectors_BB.flip(1)[:, :count].T.float().contiguous()
    vectors_NN = torch.linalg.eigh(centred_NB @ centred_NB.T).eigenvectors
    directions_PB = vectors_NN.flip(1)[:, :count].T @ centred_NB
    return nn.functional.normalize(directions_PB).float()


def _ask_trees(trained: FusionInputs, held: FusionInputs) -> dict[str, Tensor]:
    """Return what trees that are fitted to some images make of others: of their columns alone, and with the image."""
    none_MK = torch.zeros(len(held), held.classes)
    answers = {}
    for name, kind in (("columns", "average"), ("trees", "trees")):
        tensors = _make_tensors(kind, trained, 0.0)
        sizes = (trained.features_NB.shape[1], trained.values.shape[1], trained.classes)
        candidate = make_candidate(tensors, *sizes, is_multilabel=trained.is_multilabel)
        assert candidate is not None
        with torch.no_grad():
            answers[name] = candidate(none_MK, held.features_NB, held.has_image, held.values)
    return answers


def _fit_image(inputs: FusionInputs) -> LinearProbe:
    """Fit a linear model to the features of the images."""
    inputs = inputs.of_images
    return fit_linear_probe(
        inputs.features_NB,
        inputs.labels,
        inputs.classes,
        inputs.adjustment,
        inputs.task,
        inputs.label_sets,
        inputs.units_N,
    )


def _weigh(mlp: HeldOut, columns: HeldOut, is_multilabel: bool) -> tuple[float, HeldOut]:
    """Return the weight of the fusion's head by which the average has the lowest log loss, and its answers."""
    averages = {}
    for weight in WEIGHTS:
        logits_MK = average(mlp.logits_MK, columns.logits_MK, weight, is_multilabel=is_multilabel)
        averages[weight] = HeldOut(logits_MK, mlp.targets)
    best = min(averages, key=lambda weight: averages[weight].loss)
    return best, averages[best]


def _is_clearly_better(candidate: HeldOut, fusion: HeldOut) -> bool:
    """Whether a candidate is as often right, and its log loss is lower by more than luck: 1 in 20."""
    gains_M = _losses(fusion) - _losses(candidate)
    error = float(gains_M.std()) / math.sqrt(len(gains_M)) if len(gains_M) > 1 else math.inf
    return candidate.accuracy >= fusion.accuracy and float(gains_M.mean()) > MIN_GAIN_ERRORS * error


def _losses(held_out: HeldOut) -> Tensor:
    """Return the log loss of each image."""
    logits_MK, targets = held_out.logits_MK, held_out.targets
    if targets.is_floating_point():
        return nn.functional.binary_cross_entropy_with_logits(logits_MK, targets, reduction="none").mean(1)
    return nn.functional.cross_entropy(logits_MK, targets, reduction="none")


def _describe(name: str, results: dict[str, HeldOut], weight: float) -> dict[str, Any]:
    order = [one for one in ("image", "columns", *CANDIDATES) if one in results]
    scores = {one: {"accuracy": results[one].accuracy, "loss": results[one].loss} for one in order}
    images = len(results[name].logits_MK)
    return {"chosen": name, "images": images, **scores} | ({"weight": weight} if name == "average" else {})
