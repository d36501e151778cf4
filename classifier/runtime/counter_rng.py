"""Counter-based random numbers: a pure function of (key, position, stream), without state.

An image's numbers depend on the seed, the epoch and its position in the epoch, but not on its batch, the device or
earlier draws: so a run can resume in the middle of an epoch, and batches can be split in any way.
The generator is SplitMix64, which allows random access: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1
# Streams per position: augment/streams.py numbers them.
_MAX_STREAMS = 64


def key(seed: int, epoch: int) -> int:
    """Return the key of an epoch, a signed 64-bit integer; other seeds and epochs have other keys (collisions aside).

    seed and epoch: integers of any size.
    """
    return _to_signed(_mix(_mix(seed * _GAMMA + 1) + epoch * _GAMMA))


def uniforms(key: int, positions_N: Tensor, *streams: int) -> tuple[Tensor, ...]:
    """Return float32 numbers in [0, 1), of shape N, for each stream; all streams are computed together.

    positions_N: int64.
    """
    z = (positions_N * _MAX_STREAMS + _stream_column(streams, positions_N.device)) * _to_signed(_GAMMA) + key
    z = (z ^ _shift_right(z, 30)) * _to_signed(_MIX_1)
    z = (z ^ _shift_right(z, 27)) * _to_signed(_MIX_2)
    z = z ^ _shift_right(z, 31)
    return (_shift_right(z, 40).to(torch.float32) * 2.0**-24).unbind(0)  # float32 holds 24 bits exactly


@functools.lru_cache(maxsize=256)
def _stream_column(streams: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the streams with shape S x 1; cached, or it would be copied to the GPU with each batch."""
    with torch.inference_mode(False):
        return torch.tensor(streams, dtype=torch.int64, device=device)[:, None]


def uniform(key: int, positions_N: Tensor, stream: int) -> Tensor:
    """Return float32 numbers in [0, 1), of shape N, for one stream. positions_N: int64."""
    return uniforms(key, positions_N, stream)[0]


def lerp(u_N: Tensor, low: float, high: float) -> Tensor:
    """Map numbers in [0, 1) to [low, high) linearly."""
    return u_N * (high - low) + low


def log_lerp(u_N: Tensor, low: float, high: float) -> Tensor:
    """Map numbers in [0, 1) to [low, high) logarithmically: uniform ones become log-uniform."""
    return torch.exp(u_N * math.log(high / low) + math.log(low))


def beta(key: int, positions_N: Tensor, stream: int, alpha: float) -> Tensor:
    """Sample Beta(alpha, alpha), alpha > 0: float32 in [0, 1]. Uses `stream` and the one after it.

    Exact and without rejection, so each image uses the same number of draws: two uniform numbers give Student's t with
    2 alpha degrees of freedom (R. Bailey, "Polar generation of random variates with the t-distribution", Mathematics of
    Computation 1994), which is transformed to a symmetric beta (L. Devroye, "Random variate generation in one line of
    code", 1996).
    """
    u_N, v_N = uniforms(key, positions_N, stream, stream + 1)
    tail_N = u_N ** (1 / alpha)
    cosine_N = torch.cos(2 * math.pi * v_N)
    square_N = (1 - tail_N) * cosine_N.square()
    radius_N = (square_N / (tail_N + square_N).clamp_min(1e-30)).sqrt()  # the tail can underflow to 0
    return 0.5 + 0.5 * torch.copysign(radius_N, cosine_N)


def _mix(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * _MIX_1 & _MASK
    z = (z ^ (z >> 27)) * _MIX_2 & _MASK
    return z ^ (z >> 31)


def _to_signed(z: int) -> int:
    """Reinterpret 64 bits as a signed integer: torch cannot multiply unsigned ones."""
    z &= _MASK
    return z - (1 << 64) if z >> 63 else z


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: the sign bit is not extended."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """Return a permutation of range(count), int64: a function of (seed, epoch), the same on every machine and version.

    Sorts the indices by their hash; torch.randperm makes no such promise.
    """
    return torch.from_numpy(np.argsort(_hash_indices(count, seed, epoch), kind="stable"))


def uniform_by_index(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return `count` numbers in [0, 1), float64, independent of the hashes that `permutation` sorts by."""
    return (splitmix64(_hash_indices(count, seed, epoch)) >> np.uint64(11)) / 2.0**53


def _hash_indices(count: int, seed: int, epoch: int) -> np.ndarray:
    key = splitmix64(np.array([seed % 2**64], np.uint64))
    key = splitmix64(key ^ np.uint64(epoch))
    return splitmix64(splitmix64(np.arange(count, dtype=np.uint64)) ^ key)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Hash each uint64 by one step of SplitMix64 (see the top of this file)."""
    values = values + np.uint64(_GAMMA)  # wraps around, as intended
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX_1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX_2)
    return values ^ (values >> np.uint64(31))
