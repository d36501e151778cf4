"""Maximum mean discrepancy of features, with a permutation test; and the images that make it large."""

from typing import NamedTuple

import numpy as np

COMPONENTS = 32
"""Principal components of the features."""
PERMUTATIONS, BLOCK = 1000, 250
"""So many that a p-value is found that the smallest share of the level asks for; a block at a time."""
_SETTLED = 40
# As many larger ones end the test: p can no longer fall below 0.05.
MAX_IMAGES = 2000
"""Of each sample: the time grows with the square of their sum."""
_MEDIAN_IMAGES = 1000
# Of squared discrepancies in float32, which are of the order of 1 / images.
_ROUNDING = 1e-7


class MMD(NamedTuple):
    """The squared discrepancy, its p-value, and the witness function at each image of the window: how much denser the
    window is around it than the reference."""

    squared: float
    p: float
    witness_M: np.ndarray


def measure_mmd(
    reference_NF: np.ndarray, window_MF: np.ndarray, *, seed: int = 0, permutations: int = PERMUTATIONS
) -> MMD:
    """Compare two samples by the MMD of a Gaussian kernel (Gretton et al. 2012) on standardised principal components.

    Scale, components and bandwidth (the median distance) are those of both samples together, which do not change if
    images are exchanged: so the permutation test holds its level exactly, whatever the sizes, and up to a level of 0.05
    if it ends early (J. Besag, P. Clifford, "Sequential Monte Carlo p-values", 1991).
    """
    count, window = len(reference_NF) + len(window_MF), len(window_MF)
    kernel = _kernel(_project(np.concatenate([reference_NF, window_MF]).astype(np.float64)))
    rng = np.random.Generator(np.random.Philox(seed))
    contrast_N = np.full(count, -1 / (count - window), np.float32)
    contrast_N[len(reference_NF) :] = 1 / window
    witness_N = contrast_N @ kernel
    squared = float((witness_N * contrast_N).sum(dtype=np.float64))
    # Equal but for rounding counts as at least as large; where all images are alike, nothing else is left.
    least = squared * (1 - 1e-6) - _ROUNDING
    larger = drawn = 0
    while drawn < permutations and larger < _SETTLED:
        contrast_BN = rng.permuted(np.tile(contrast_N, (min(BLOCK, permutations - drawn), 1)), axis=1)
        larger += int((((contrast_BN @ kernel) * contrast_BN).sum(1, dtype=np.float64) >= least).sum())
        drawn += len(contrast_BN)
    p = (1 + larger) / (1 + drawn)
    return MMD(max(0.0, squared), p, witness_N[len(reference_NF) :].astype(np.float64))


def _project(pooled_NF: np.ndarray) -> np.ndarray:
    centred_NF = pooled_NF - pooled_NF.mean(0)
    deviation_F = centred_NF.std(0)
    is_varied_F = deviation_F > 1e-6 * max(1e-12, float(np.abs(pooled_NF).max()))
    if not is_varied_F.any():
        return np.zeros((len(pooled_NF), 1), np.float32)
    scaled_NF = centred_NF[:, is_varied_F] / deviation_F[is_varied_F]
    _, axes_FF = np.linalg.eigh(scaled_NF.T @ scaled_NF)
    return (scaled_NF @ axes_FF[:, -COMPONENTS:]).astype(np.float32)


def _kernel(points_ND: np.ndarray) -> np.ndarray:
    squares_N = np.square(points_ND).sum(1)
    distances_NN = -2.0 * points_ND @ points_ND.T
    distances_NN += squares_N
    distances_NN += squares_N[:, None]
    np.maximum(distances_NN, 0, out=distances_NN)
    step = -(-len(points_ND) // _MEDIAN_IMAGES)
    some = distances_NN[::step, ::step]
    median = float(np.median(some[np.triu_indices(len(some), 1)])) if len(some) > 1 else 1.0
    distances_NN *= np.float32(-1 / max(median, 1e-12))
    return np.exp(distances_NN, out=distances_NN)
