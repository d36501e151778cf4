"""What the model thinks of each image: that of the bundle, or a linear probe of the labels so far."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from classifier.data.labels.class_names import sort_class_names
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.label.pool import Pool

Labels = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Guesses:
    """probabilities_NK of the images of a pool."""

    class_names: tuple[str, ...]
    probabilities_NK: np.ndarray

    def name_best(self, image: int, *, is_multilabel: bool = False) -> tuple[Labels, float]:
        """Return the class, or labels, of an image, and a probability: that of the class, or of the surest label."""
        own_K = self.probabilities_NK[image]
        best = int(own_K.argmax())
        if is_multilabel:
            return tuple(self.class_names[k] for k in np.flatnonzero(own_K >= 0.5)), float(own_K[best])
        return (self.class_names[best],), float(own_K[best])


def guess(
    pool: Pool, class_names: tuple[str, ...], labels: Mapping[int, Labels], *, is_multilabel: bool = False
) -> Guesses | None:
    """Return the answers of the bundle's model, whose class names these are; without one, those of a linear probe.

    labels: by index of an image in the pool. None while fewer than two classes are known.
    """
    if pool.probabilities_NK is not None:
        return Guesses(class_names, pool.probabilities_NK)
    names = sort_class_names({label for own in labels.values() for label in own})
    if len(names) < 2:
        return None
    index_M = torch.tensor(sorted(labels))
    features_NF = torch.from_numpy(pool.features_NF)
    if is_multilabel:
        sets = sorted({tuple(sorted(own)) for own in labels.values()})
        sets_MK = torch.tensor([[name in own for name in names] for own in sets])
        targets_M = torch.tensor([sets.index(tuple(sorted(labels[n]))) for n in index_M.tolist()])
        probe = fit_linear_probe(features_NF[index_M], targets_M, len(names), 0.0, "multilabel", sets_MK)
        return Guesses(names, probe.head(features_NF).sigmoid().numpy())
    targets_M = torch.tensor([names.index(labels[n][0]) for n in index_M.tolist()])
    probe = fit_linear_probe(features_NF[index_M], targets_M, len(names))
    return Guesses(names, probe.head(features_NF).softmax(1).numpy())
