"""Decision trees over columns, or over image features and columns: a forest of few images, else gradient boosting.

Of 235 units of a game with 13 columns, extremely randomized trees (P. Geurts et al., 2006) told 77 to 80 % of five
classes right, and gradient boosting 72 to 75 %.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from classifier.models.fusion.tree_ensemble import NEVER, from_boosting, from_forest
from classifier.training.fusion.inputs import FusionInputs

# A forest's leaves hold single images: it grows with them, and with the classes.
MAX_FOREST_IMAGES, MAX_FOREST_VALUES = 3000, 4_000_000
FOREST_TREES, FOREST_SHARE = 300, 0.5
BOOSTING_ROUNDS, BOOSTING_RATE, MIN_LEAF = 100, 0.1, 10
# With many classes each round grows as many trees.
MAX_BOOSTING_TREES = 3000


def grow_trees(values_NF: Tensor, inputs: FusionInputs) -> dict[str, Tensor]:
    """Return the tensors of a TreeEnsemble (models/fusion/tree_ensemble.py), fitted to the targets of `inputs`.

    values_NF: NaN where a value is missing. Deterministic.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    array_NF, targets = values_NF.numpy(), inputs.targets.numpy()
    nodes = 2 * len(inputs) * FOREST_TREES
    if len(inputs) > MAX_FOREST_IMAGES or nodes * inputs.classes > MAX_FOREST_VALUES:
        return _boost(array_NF, targets, inputs)
    settings: dict[str, Any] = {"max_features": FOREST_SHARE, "n_jobs": torch.get_num_threads()}
    forest: Any = ExtraTreesClassifier(FOREST_TREES, random_state=inputs.seed, **settings)
    labels = targets.astype(np.int64)
    forest.fit(array_NF, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels)
    return from_forest(forest, inputs.classes)


def _boost(array_NF: np.ndarray, targets: np.ndarray, inputs: FusionInputs) -> dict[str, Tensor]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rounds = min(BOOSTING_ROUNDS, max(10, MAX_BOOSTING_TREES // inputs.classes))

    def boost(labels_N: np.ndarray) -> Any:
        if targets.ndim == 2 and labels_N.min() == labels_N.max():
            return NEVER if labels_N[0] else -NEVER
        model: Any = HistGradientBoostingClassifier(random_state=inputs.seed)
        model.set_params(max_iter=rounds, learning_rate=BOOSTING_RATE, min_samples_leaf=MIN_LEAF, early_stopping=False)
        return model.fit(array_NF, labels_N)

    if targets.ndim == 1:
        return from_boosting([boost(targets)], inputs.classes)
    return from_boosting([boost(targets_N) for targets_N in targets.T.astype(np.int64)], inputs.classes, of_labels=True)
