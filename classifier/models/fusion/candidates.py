"""What may answer in place of a fusion's head: decision trees, or the average of the head and of trees."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from classifier.models.fusion.tree_ensemble import TreeEnsemble

# Probabilities whose logarithm is taken are no smaller.
TINY = 1e-7
TREES = "trees."


class JointTrees(nn.Module):
    """Trees over the main components of the image's features and all columns.

    projection: projection_PB, of B features to P components. offset: offset_K, which is taken from the logits. Of a
    missing image all components are missing.
    """

    def __init__(self, trees: TreeEnsemble, offset: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset.float().clone())
        self.register_buffer("projection", projection.float().clone())
        self.trees = trees

    offset: Tensor
    projection: Tensor

    def forward(self, logits_NK: Tensor, features_NB: Tensor, has_image_N1: Tensor, values_NF: Tensor) -> Tensor:
        """Return logits_NK. logits_NK, of the fusion's head, have no part in them."""
        components_NP = project(features_NB, self.projection).masked_fill(~has_image_N1, float("nan"))
        return self.trees(torch.cat([components_NP, values_NF], 1)) - self.offset


class Average(nn.Module):
    """The weighted mean of the probabilities of the fusion's head and of trees over the columns.

    weight: of the head, in [0, 1]; where all columns are missing it answers alone. offset: as of JointTrees.
    """

    def __init__(self, trees: TreeEnsemble, offset: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset.float().clone())
        self.register_buffer("weight", weight.float().clone())
        self.trees = trees

    offset: Tensor
    weight: Tensor

    def forward(self, logits_NK: Tensor, features_NB: Tensor, has_image_N1: Tensor, values_NF: Tensor) -> Tensor:
        """Return logits_NK. logits_NK: of the fusion's head."""
        weight_N1 = torch.where(values_NF.isnan().all(1, keepdim=True), 1.0, self.weight)
        trees_NK = self.trees(values_NF) - self.offset
        return average(logits_NK, trees_NK, weight_N1, is_multilabel=self.trees.is_multilabel)


Candidate = JointTrees | Average


def average(first_NK: Tensor, second_NK: Tensor, weight: Tensor | float, *, is_multilabel: bool) -> Tensor:
    """Return the logits of the weighted mean of the probabilities of two models. weight: of the first."""
    if is_multilabel:
        mean_NK = weight * first_NK.sigmoid() + (1 - weight) * second_NK.sigmoid()
        return mean_NK.clamp(TINY, 1 - TINY).logit()
    mean_NK = weight * first_NK.softmax(1) + (1 - weight) * second_NK.softmax(1)
    return mean_NK.clamp_min(TINY).log()


def project(features_NB: Tensor, projection_PB: Tensor) -> Tensor:
    """Return components_NP in float32: a matrix product would be rounded by autocast, and trees notice."""
    return torch.stack([(features_NB * row_B).sum(1) for row_B in projection_PB.unbind()], 1)


def make_candidate(
    tensors: Mapping[str, Tensor], features: int, width: int, classes: int, *, is_multilabel: bool = False
) -> Candidate | None:
    """Return the candidate of these tensors, or None of none. ValueError if they do not fit features and columns.

    features: of the image; width: numbers of all columns.
    """
    if not tensors:
        return None
    parts = {name.removeprefix(TREES): tensor for name, tensor in tensors.items() if name.startswith(TREES)}
    trees = TreeEnsemble(parts, classes=classes, is_multilabel=is_multilabel)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(TREES)}
    is_average = "weight" in own
    components = 0 if is_average else len(own.get("projection", ()))
    if int(trees.features.max()) >= components + width:
        raise ValueError(f"the trees ask for more than the {components + width} numbers that there are")
    shapes: dict[str, tuple[int, ...]] = {"offset": (classes,)}
    shapes |= {"weight": ()} if is_average else {"projection": (components, features)}
    if own.keys() != shapes.keys() or any(tuple(own[name].shape) != shape for name, shape in shapes.items()):
        raise ValueError("their tensors do not have the shapes of this model")
    if is_average:
        return Average(trees, own["offset"], own["weight"])
    return JointTrees(trees, own["offset"], own["projection"])
