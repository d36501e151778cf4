"""Two-sample tests of one variable at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def compare_values(reference_N: np.ndarray, window_M: np.ndarray) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test, two-sided; 1 if one of them has no values. NaN is left out."""
    from scipy.stats import ks_2samp

    reference_N, window_M = reference_N[~np.isnan(reference_N)], window_M[~np.isnan(window_M)]
    if not len(reference_N) or not len(window_M):
        return 1.0
    result: Any = ks_2samp(reference_N, window_M, method="asymp")
    return float(result.pvalue)


def compare_columns(reference_NK: np.ndarray, window_MK: np.ndarray) -> np.ndarray:
    """Return p_K, of the Kolmogorov-Smirnov test of each column."""
    return np.array([compare_values(reference_NK[:, k], window_MK[:, k]) for k in range(reference_NK.shape[1])])


def compare_counts(reference_K: Sequence[int] | np.ndarray, window_K: Sequence[int] | np.ndarray) -> float:
    """Return the p-value of the chi-squared test that two counts of the same categories are of one distribution.

    Categories of less than 5 expected observations are counted together, as the approximation needs them.
    """
    from scipy.stats import chi2_contingency

    counts_2K = np.array([reference_K, window_K], np.float64)
    total = counts_2K.sum()
    if not counts_2K.sum(1).all():
        return 1.0
    expected_K = counts_2K.sum(0) * counts_2K.sum(1).min() / total
    is_rare_K = expected_K < 5
    rare_2 = counts_2K[:, is_rare_K].sum(1, keepdims=True)
    counts_2K = np.concatenate([counts_2K[:, ~is_rare_K], rare_2], 1)
    counts_2K = counts_2K[:, counts_2K.sum(0) > 0]
    if counts_2K.shape[1] < 2:
        return 1.0
    result: Any = chi2_contingency(counts_2K, correction=False)
    return float(result.pvalue)
