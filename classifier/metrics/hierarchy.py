"""Classes in classes: what the names of leaves, such as animal/dog, say of the classes above them. In numpy alone.

An answer above the leaves is the deepest class whose probability, the sum over its leaves, is above a threshold. The
threshold is conformal, as in Bates et al. 2021 (Distribution-Free, Risk-Controlling Prediction Sets), who go up from
the most likely leaf: an answer is wrong if and only if the most likely of the classes that do not hold the label, at
any level, is above the threshold, and that probability has a quantile like any other score. As no threshold is below
one half, the classes above it lie on one path, and its end is the answer.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SEPARATOR = "/"
MIN_THRESHOLD = 0.5
"""An answer above the leaves is more likely right than wrong, however accurate the model was in validation."""


class Level(NamedTuple):
    """The classes at a depth, 1 for the outermost; a leaf that is not that deep stands for itself.

    of_leaf_K: int64, which of the names each leaf belongs to.
    """

    depth: int
    names: tuple[str, ...]
    of_leaf_K: np.ndarray

    def sum_up(self, probabilities_NK: ArrayLike) -> np.ndarray:
        """Return probabilities_NL of the L classes, float64."""
        return _sum_groups(probabilities_NK, self.of_leaf_K == np.arange(len(self.names))[:, None])


class Hierarchy:
    """The tree above K leaves, by their names, which are paths.

    A class above them that holds all, or only one, says nothing, and is left out. Where leaves and the classes above
    them are counted together, the leaves come first.
    """

    def __init__(self, leaves: Sequence[str]) -> None:
        self.leaves = tuple(leaves)
        held: dict[tuple[str, ...], list[int]] = {}
        for k, name in enumerate(leaves):
            for path in list_prefixes(name):
                held.setdefault(path, []).append(k)
        telling = [path for path, inside in held.items() if 1 < len(inside) < len(leaves)]
        kept = sorted(telling, key=lambda path: (len(path), path))
        self.ancestors = tuple(map(SEPARATOR.join, kept))
        """The A classes above the leaves, the deepest last."""
        self.in_AK = np.zeros((len(kept), len(leaves)), bool)
        """Which leaves each of them holds."""
        for a, path in enumerate(kept):
            self.in_AK[a, held[path]] = True

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Those of the leaves, then of the classes above them."""
        return self.leaves + self.ancestors

    @functools.cached_property
    def levels(self) -> list[Level]:
        """The levels above the leaves, without those of a single class, or of as many as there are leaves."""
        found, deepest = [], max((name.count(SEPARATOR) for name in self.leaves), default=0)
        for depth in range(1, deepest + 1):
            of_leaf = [SEPARATOR.join(name.split(SEPARATOR)[:depth]) for name in self.leaves]
            number = {name: n for n, name in enumerate(dict.fromkeys(of_leaf))}
            if 1 < len(number) < len(self.leaves):
                found.append(Level(depth, tuple(number), np.array([number[name] for name in of_leaf], np.int64)))
        return found

    def sum_up(self, probabilities_NK: ArrayLike) -> np.ndarray:
        """Return probabilities_NA of the classes above the leaves, float64."""
        return _sum_groups(probabilities_NK, self.in_AK)

    def find_best(self, probabilities_K: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return the most likely class of each level above the leaves with its probability, the outermost first."""
        sums = [np.bincount(level.of_leaf_K, probabilities_K).clip(max=1.0) for level in self.levels]
        return tuple(
            (level.names[sums_L.argmax()], float(sums_L.max())) for level, sums_L in zip(self.levels, sums, strict=True)
        )

    def decide(self, probabilities_NK: ArrayLike, decisions_N: np.ndarray, threshold: float) -> np.ndarray:
        """Return indices into `names`, int64: the decision for a leaf, and where there is none (-1), the deepest class
        above the leaves whose probability is above the threshold, if any is."""
        if not self.ancestors:
            return decisions_N
        is_above_NA = self.sum_up(probabilities_NK) > max(threshold, MIN_THRESHOLD)
        deepest_N = len(self.names) - 1 - is_above_NA[:, ::-1].argmax(1)
        return np.where((decisions_N < 0) & is_above_NA.any(1), deepest_N, decisions_N)

    def fit_threshold(self, probabilities_NK: ArrayLike, labels_N: ArrayLike, coverage: float) -> float:
        """Return the threshold above which the deepest class, of any level, holds the label of `coverage` of images.

        The guarantee is for new images, on average over draws of these. 1, which no class is above, if there are too
        few of them.
        """
        probabilities_NK, labels_N = np.asarray(probabilities_NK, np.float64), np.asarray(labels_N)
        is_label_NK = np.arange(len(self.leaves)) == labels_N[:, None]
        wrong_leaf_N = np.where(is_label_NK, 0, probabilities_NK).max(1)
        wrong_ancestor_N = np.where(self.in_AK[:, labels_N].T, 0, self.sum_up(probabilities_NK)).max(1, initial=0)
        wrong_N = np.sort(np.maximum(wrong_leaf_N, wrong_ancestor_N).clip(max=1))
        rank = math.ceil((len(wrong_N) + 1) * coverage)
        return max(MIN_THRESHOLD, float(wrong_N[rank - 1])) if rank <= len(wrong_N) else 1.0


def list_prefixes(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of each class above a leaf, the outermost first."""
    path = tuple(name.split(SEPARATOR))
    yield from (path[:depth] for depth in range(1, len(path)))


def _sum_groups(probabilities_NK: ArrayLike, in_GK: np.ndarray) -> np.ndarray:
    return (np.asarray(probabilities_NK, np.float64) @ in_GK.T).clip(max=1.0)  # no rounding makes it more than sure
