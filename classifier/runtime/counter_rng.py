"""Random numbers that are looked up, not drawn: a pure function of (key, position, stream).

An image's numbers depend on the seed, the epoch and its place in the epoch, never on the batch it comes in, the device
or what was drawn before: so a run resumes in the middle of an epoch, and batches can be cut in any way.
The numbers are those of SplitMix64, which can be entered at any place: G. Steele, D. Lea, C. Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1
# Numbers a position: every stream below, with room for RandAugment's layers.
_STREAMS = 64


def key(seed: int, epoch: int) -> int:
    """The key of an epoch: 64 signed bits, the same for no other seed and epoch (but for chance).

    seed and epoch: whole numbers of any size.
    """
    return _signed(_finish(_finish(seed * _GAMMA + 1) + epoch * _GAMMA))


def uniforms(key: int, positions_N: Tensor, *streams: int) -> tuple[Tensor, ...]:
    """Float32 in [0, 1) of each stream, each of shape N. positions_N: int64. The draws of all streams cost as one."""
    z = (positions_N * _STREAMS + _column(streams, positions_N.device)) * _signed(_GAMMA) + key
    z = (z ^ _shifted(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shifted(z, 27)) * _signed(_MIX_2)
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 40).to(torch.float32) * 2.0**-24).unbind(0)  # float32 holds 24 bits exactly


@functools.lru_cache(maxsize=256)
def _column(streams: tuple[int, ...], device: torch.device) -> Tensor:
    """Of shape S x 1; made once, or a GPU would be sent it with each batch."""
    with torch.inference_mode(False):
        return torch.tensor(streams, dtype=torch.int64, device=device)[:, None]


def uniform(key: int, positions_N: Tensor, stream: int) -> Tensor:
    """Float32 in [0, 1) of one stream, of shape N. positions_N: int64."""
    return uniforms(key, positions_N, stream)[0]


def between(u_N: Tensor, low: float, high: float) -> Tensor:
    """Numbers of [0, 1) stretched to [low, high)."""
    return u_N * (high - low) + low


def log_between(u_N: Tensor, low: float, high: float) -> Tensor:
    """Numbers of [0, 1) stretched to [low, high) so that each doubling is as likely as the next."""
    return torch.exp(u_N * math.log(high / low) + math.log(low))


def beta(key: int, positions_N: Tensor, stream: int, alpha: float) -> Tensor:
    """Float32 in [0, 1] with the distribution Beta(alpha, alpha), alpha > 0. Takes `stream` and the one after it.

    Exact and without rejection, so that each image takes the same count of numbers: Student's t of 2 alpha degrees of
    freedom from two uniform numbers (R. Bailey, "Polar generation of random variates with the t-distribution",
    Mathematics of Computation 1994), turned into a symmetric beta (L. Devroye, "Random variate generation in one line
    of code", 1996).
    """
    u_N, v_N = uniforms(key, positions_N, stream, stream + 1)
    tail_N = u_N ** (1 / alpha)
    cosine_N = torch.cos(2 * math.pi * v_N)
    square_N = (1 - tail_N) * cosine_N.square()
    share_N = (square_N / (tail_N + square_N).clamp_min(1e-30)).sqrt()  # the tail is 0 where it is too small to hold
    return 0.5 + 0.5 * torch.copysign(share_N, cosine_N)


def _finish(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * _MIX_1 & _MASK
    z = (z ^ (z >> 27)) * _MIX_2 & _MASK
    return z ^ (z >> 31)


def _signed(z: int) -> int:
    """The same 64 bits as torch holds them: it has no multiplication of unsigned numbers."""
    z &= _MASK
    return z - (1 << 64) if z >> 63 else z


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift to the right without dragging the sign along."""
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
