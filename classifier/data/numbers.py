"""Numbers that are looked up, not drawn: functions of (seed, epoch), the same on every machine and version."""

import numpy as np
import torch
from torch import Tensor


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `count` places, int64: a function of (seed, epoch) on every machine and version.

    Places are sorted by their number's hash; torch.randperm promises no such stability.
    """
    return torch.from_numpy(np.argsort(_hashes(count, seed, epoch), kind="stable"))


def uniform(count: int, seed: int, epoch: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64; others than those that `order` sorts by."""
    return (splitmix64(_hashes(count, seed, epoch)) >> np.uint64(11)) / 2.0**53


def _hashes(count: int, seed: int, epoch: int) -> np.ndarray:
    key = splitmix64(np.array([seed % 2**64], np.uint64))
    key = splitmix64(key ^ np.uint64(epoch))
    return splitmix64(splitmix64(np.arange(count, dtype=np.uint64)) ^ key)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """A hash of each uint64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)  # wraps, as it must
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
