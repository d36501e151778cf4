"""The out-of-distribution detector of a model, applied: in numpy alone. out_of_distribution.py fits it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The arrays of a layer.
GAUSSIAN = ("mean", "axes", "deviations", "rest", "centre", "spread")
_NUMBERS = re.compile(r"(\d+)")
# Squared distances below it tell nothing: they have dozens of terms, each 1 on average over the training images, unless
# all images look the same to the model, and only rounding errors differ.
MIN_DISTANCE = 1.0


@dataclass(frozen=True, eq=False)
class OODDetector:
    """The fitted Gaussians. arrays: "LAYER/NAME" and "limit", float32, as stored in the bundle."""

    arrays: Mapping[str, np.ndarray]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, from early to late as far as their numbers tell; a file holds arrays in any order."""
        names = (name.removesuffix("/mean") for name in self.arrays if name.endswith("/mean"))
        return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in _NUMBERS.split(name)])

    @property
    def threshold(self) -> float:
        """Images that score above it are out of distribution."""
        return float(self.arrays["limit"])

    @property
    def is_whole(self) -> bool:
        """Whether the arrays are those of a detector: a Gaussian for each layer, and the limit."""
        shapes = {name: array.shape for name, array in self.arrays.items()}
        gaussians = [[shapes.get(f"{layer}/{name}") for name in GAUSSIAN] for layer in self.layers]
        return (
            shapes.get("limit") == ()
            and bool(gaussians)
            and all(
                mean is not None
                and len(mean) == 1
                and deviations is not None
                and axes == mean + deviations
                and scalars == [(), (), ()]
                for mean, axes, deviations, *scalars in gaussians
            )
        )

    def score(self, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return scores_N, float32: standardised distances from the training images, maximum over layers.

        statistics: stats_NF of each layer (out_of_distribution.channel_statistics).
        """
        return np.max([standardised_distance(statistics[layer], self.arrays, layer) for layer in self.layers], axis=0)


def standardised_distance(stats_NF: np.ndarray, arrays: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    """Return the log squared Mahalanobis distance, standardised by those of the training images."""
    mean_F, axes_FA, deviations_A, rest, centre, spread = (arrays[f"{layer}/{name}"] for name in GAUSSIAN)
    offset_NF = stats_NF - mean_F
    along_NA = offset_NF @ axes_FA
    residual_N = np.maximum(np.square(offset_NF).sum(1) - np.square(along_NA).sum(1), 0)
    distance_N = np.square(along_NA / deviations_A).sum(1) + residual_N / rest**2
    return (np.log(np.maximum(distance_N, MIN_DISTANCE)) - centre) / spread
