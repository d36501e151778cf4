"""Decision trees of scikit-learn as tensors: they are saved with a model's weights, exported with its graph, and run
where the model runs. Missing values (NaN) go the way that the trees learned for them.

All trees of an ensemble are one list of nodes, in which children come after their parent; a leaf is its own child. So
a loop over the depth of the deepest tree takes every row to its leaves, and no step depends on the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# An ensemble that is read from a file may be as large as this: nodes in all, and from root to leaf.
MAX_NODES, MAX_DEPTH = 1 << 24, 512
# Share of a forest's probability that is spread over all classes: its trees may all rule one out.
FOREST_SMOOTHING = 0.05

# Log-odds against a class that no training image has.
NEVER = 10.0

_TENSORS = {
    "features": torch.int64,
    "thresholds": torch.float32,
    "lefts": torch.int64,
    "rights": torch.int64,
    "missing_left": torch.bool,
    "values": torch.float32,
    "roots": torch.int64,
    "baseline": torch.float32,
}

# A tree that is one leaf, of the value 0.
_STUMP = {
    "features": np.zeros(1, np.int64),
    "thresholds": np.zeros(1),
    "lefts": np.full(1, -1),
    "rights": np.full(1, -1),
    "missing_left": np.zeros(1, bool),
    "values": np.zeros((1, 1)),
}


class TreeEnsemble(nn.Module):
    """inputs_NF, float32 with NaN where values are missing, to logits_NK.

    tensors, of M nodes and T trees: features, lefts, rights (int64, M), thresholds (float32, M; a value up to it goes
    left), missing_left (bool, M), roots (int64, T), values (float32, M x V) and baseline (float32, O).

    Of gradient boosting V is 1: the trees take turns for O outputs, whose values are summed, with a baseline; O is 1
    for two classes. Of a forest V is the number of classes: the mean over the trees is a probability, of each label
    alone if is_multilabel. ValueError if tensors do not describe trees.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, classes: int, is_multilabel: bool = False) -> None:
        super().__init__()
        self.depth = check_trees(tensors, classes)
        self.classes, self.is_multilabel = classes, is_multilabel
        for name, dtype in _TENSORS.items():
            self.register_buffer(name, tensors[name].to(dtype).clone())

    features: Tensor
    thresholds: Tensor
    lefts: Tensor
    rights: Tensor
    missing_left: Tensor
    values: Tensor
    roots: Tensor
    baseline: Tensor

    @property
    def is_forest(self) -> bool:
        return len(self.baseline) == 0

    def forward(self, inputs_NF: Tensor) -> Tensor:
        values_NTV = self.values[self._find_leaves(inputs_NF.float())]
        if self.is_forest:
            return self._to_logits(values_NTV.mean(1))
        rounds_NRO = values_NTV.unflatten(1, (-1, len(self.baseline)))[..., 0]
        scores_NO = rounds_NRO.sum(1) + self.baseline
        if scores_NO.shape[1] == self.classes:
            return scores_NO
        return torch.cat([-scores_NO / 2, scores_NO / 2], 1)  # of two classes

    def _find_leaves(self, inputs_NF: Tensor) -> Tensor:
        """Return leaves_NT, a node of each tree."""
        nodes_NT = self.roots.expand(inputs_NF.shape[0], -1)  # len() would fix the batch of an exported graph
        for _ in range(self.depth):
            values_NT = inputs_NF.gather(1, self.features[nodes_NT])
            is_missing_NT = values_NT != values_NT
            # ONNX Runtime has no Where of truth values; NaN is never below a threshold.
            is_left_NT = (values_NT <= self.thresholds[nodes_NT]) | (is_missing_NT & self.missing_left[nodes_NT])
            nodes_NT = torch.where(is_left_NT, self.lefts[nodes_NT], self.rights[nodes_NT])
        return nodes_NT

    def _to_logits(self, probabilities_NK: Tensor) -> Tensor:
        if self.is_multilabel:
            return ((1 - FOREST_SMOOTHING) * probabilities_NK + FOREST_SMOOTHING / 2).logit()
        return ((1 - FOREST_SMOOTHING) * probabilities_NK + FOREST_SMOOTHING / self.classes).log()


def check_trees(tensors: Mapping[str, Tensor], classes: int) -> int:
    """Return the depth of the deepest tree. ValueError if the tensors are no trees, or larger than allowed."""
    if missing := _TENSORS.keys() - tensors.keys():
        raise ValueError(f"the trees lack {', '.join(sorted(missing))}")
    features, lefts, rights, roots = (tensors[n].long().cpu().numpy() for n in ("features", "lefts", "rights", "roots"))
    nodes, outputs = len(features), tensors["baseline"].numel()
    values = tensors["values"]
    is_sound = (
        0 < nodes <= MAX_NODES
        and all(tensors[name].shape == (nodes,) for name in ("thresholds", "lefts", "rights", "missing_left"))
        and values.dim() == 2
        and (len(values), values.shape[1]) in ((nodes, 1), (nodes, classes))
        and (values.shape[1] == classes if outputs == 0 else outputs in (classes, 1) and values.shape[1] == 1)
        and (outputs == 0 or len(roots) % outputs == 0)
        and roots.ndim == 1
        and len(roots) > 0
    )
    own = np.arange(nodes)
    is_sound = is_sound and bool(
        (features >= 0).all()
        and (lefts >= own).all()
        and (rights >= own).all()
        and ((lefts == own) == (rights == own)).all()
        and (lefts < nodes).all()
        and (rights < nodes).all()
        and (roots >= 0).all()
        and (roots < nodes).all()
    )
    if not is_sound:
        raise ValueError("the trees are not as scikit-learn grows them")
    level, depth = np.unique(roots), 0
    while len(level := level[lefts[level] != level]):
        level = np.unique(np.concatenate([lefts[level], rights[level]]))
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"a tree is deeper than {MAX_DEPTH} nodes")
    return depth


def from_boosting(models: Sequence[Any], classes: int, *, of_labels: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a HistGradientBoostingClassifier of numbers in [0, classes), of which it need not have seen
    all; or, of_labels, of one for each label, of 0 and 1, or a number: the log-odds of a label that never varied.

    The models of labels have equally many rounds.
    """
    rounds = max(1 if isinstance(model, float) else model.n_iter_ for model in models)
    outputs = [output for model in models for output in _list_outputs(model, rounds, classes, of_labels)]
    trees = [output.trees[i] for i in range(rounds) for output in outputs]
    baseline = torch.tensor([output.baseline for output in outputs], dtype=torch.float32)
    return _join(trees) | {"baseline": baseline}


@dataclass(frozen=True)
class _Output:
    """A sum of trees, one of each round."""

    trees: Sequence[Mapping[str, np.ndarray]]
    baseline: float


def _list_outputs(model: Any, rounds: int, classes: int, of_labels: bool) -> list[_Output]:
    """Return the outputs of a model: of a label one, of classes one each, but of two classes one alone."""
    stumps = [_STUMP] * rounds
    if isinstance(model, float):
        return [_Output(stumps, model)]
    baselines, seen = np.ravel(model._baseline_prediction).tolist(), model.classes_.astype(int).tolist()
    sums = [
        _Output([_read_boosted(trees[k].nodes) for trees in model._predictors], baselines[k])
        for k in range(len(baselines))
    ]
    if of_labels or classes == len(seen):
        return sums
    if len(sums) == 1:  # two classes of more
        (one,) = sums
        sums = [_scale(one, -0.5), _scale(one, 0.5)]
    by_class = dict(zip(seen, sums, strict=True))
    return [by_class.get(k, _Output(stumps, -NEVER)) for k in range(classes)]


def _scale(output: _Output, factor: float) -> _Output:
    trees = [{**tree, "values": factor * tree["values"]} for tree in output.trees]
    return _Output(trees, factor * output.baseline)


def _read_boosted(nodes: np.ndarray) -> dict[str, np.ndarray]:
    is_leaf = nodes["is_leaf"].astype(bool)
    return {
        "features": np.where(is_leaf, 0, nodes["feature_idx"]),
        "thresholds": np.where(is_leaf, 0, nodes["num_threshold"]),
        "lefts": np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        "rights": np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        "missing_left": nodes["missing_go_to_left"].astype(bool),
        "values": np.where(is_leaf, nodes["value"], 0.0)[:, None],
    }


def from_forest(forest: Any, classes: int) -> dict[str, Tensor]:
    """Return the tensors of an ExtraTreesClassifier or RandomForestClassifier of `classes` classes, or labels.

    Its classes are numbers in [0, classes), of which it need not have seen all; labels are a column each.
    """
    parts = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        if forest.n_outputs_ == 1:
            values_MK = np.zeros((tree.node_count, classes))
            values_MK[:, forest.classes_.astype(int)] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
        else:  # of each label: the share of 1, where a label has both values
            shares = tree.value / tree.value.sum(2, keepdims=True)
            values_MK = np.stack([_share_of_one(shares[:, k], forest.classes_[k]) for k in range(classes)], 1)
        parts.append(
            {
                "features": np.where(is_leaf, 0, tree.feature),
                "thresholds": np.where(is_leaf, 0, tree.threshold),
                "lefts": np.where(is_leaf, -1, tree.children_left),
                "rights": np.where(is_leaf, -1, tree.children_right),
                "missing_left": tree.missing_go_to_left.astype(bool),
                "values": values_MK,
            }
        )
    return _join(parts) | {"baseline": torch.zeros(0)}


def _share_of_one(shares_MC: np.ndarray, values: np.ndarray) -> np.ndarray:
    ones = np.flatnonzero(values == 1)
    return shares_MC[:, ones[0]] if len(ones) else np.zeros(len(shares_MC))


def _join(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """Make one list of the nodes of all trees; -1 as the child of a leaf becomes the leaf itself."""
    sizes = [len(part["features"]) for part in parts]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    offset_M, own_M = np.repeat(roots, sizes), np.arange(sum(sizes))
    for name in ("lefts", "rights"):
        joined[name] = np.where(joined[name] < 0, own_M, joined[name] + offset_M)
    joined["thresholds"] = _round_down(joined["thresholds"])
    joined["roots"] = roots
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(_TENSORS[name]) for name, array in joined.items()}


def _round_down(thresholds_M: np.ndarray) -> np.ndarray:
    """Return the largest float32 up to each threshold, below which are the same float32 values."""
    nearest_M = thresholds_M.astype(np.float32)
    return np.where(nearest_M > thresholds_M, np.nextafter(nearest_M, np.float32(-np.inf)), nearest_M)
