"""Crowds: thousands of images that all resemble each other, such as the frames of a still camera.

Comparing all pairs of a crowd would take hours, and list millions of them. A crowd is cut into parts of neighbours
instead, in two ways, so that images near each other are in one part in at least one of them.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

MIN_CROWD, MAX_PART = 4096, 2048
MIN_CROWD_COSINE = 0.98
"""Minimum cosine of an image's frequency vector with that of the first of its crowd."""
MAX_LISTED = 64
"""Among more images that are linked to each other, only so many pairs are compared as link them."""
_HASH_BITS, _CUTS = 8, 2
_SEED = 0


def split_crowds(even_ND: Tensor, odd_ND: Tensor) -> list[Tensor]:
    """Return sets of images to compare, int64 indices: without a crowd, one set of all.

    With crowds: the parts of each, and a set of one image of each crowd with all images that are in none.
    """
    vectors_ND = torch.cat([even_ND, odd_ND], 1)
    rng = torch.Generator().manual_seed(_SEED)
    crowds = list(_find_crowds(vectors_ND, rng)) if len(vectors_ND) > MIN_CROWD else []
    if not crowds:
        return [torch.arange(len(vectors_ND))]
    in_no_crowd_N = torch.ones(len(vectors_ND), dtype=torch.bool)
    for crowd_M in crowds:
        in_no_crowd_N[crowd_M[1:]] = False
    parts = [part_M for crowd_M in crowds for _ in range(_CUTS) for part_M in _cut(vectors_ND, crowd_M, rng)]
    return [in_no_crowd_N.nonzero()[:, 0], *parts]


def _find_crowds(vectors_ND: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield the indices of each crowd. Images are first sorted into buckets of similar direction, by random planes."""
    planes_DB = torch.randn(vectors_ND.shape[1], _HASH_BITS, generator=rng)
    hashes_N = ((vectors_ND @ planes_DB > 0).long() << torch.arange(_HASH_BITS)).sum(1)
    norms_N = vectors_ND.norm(dim=1)
    for value in range(2**_HASH_BITS):
        bucket_M = ((hashes_N == value) & (norms_N > 0.5)).nonzero()[:, 0]  # of length 0: a single colour
        while len(bucket_M) >= MIN_CROWD:
            is_near_M = vectors_ND[bucket_M] @ vectors_ND[bucket_M[0]] >= MIN_CROWD_COSINE
            is_near_M[0] = True
            if int(is_near_M.sum()) >= MIN_CROWD:
                yield bucket_M[is_near_M]
            bucket_M = bucket_M[~is_near_M]


def _cut(vectors_ND: Tensor, crowd_M: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield parts of at most MAX_PART images, halving the crowd by random directions."""
    if len(crowd_M) <= MAX_PART:
        yield crowd_M
        return
    direction_D = torch.randn(vectors_ND.shape[1], generator=rng)
    order_M = (vectors_ND[crowd_M] @ direction_D).argsort(stable=True)
    for half_M in order_M.chunk(2):
        yield from _cut(vectors_ND, crowd_M[half_M].sort().values, rng)


class Links:
    """Which images are linked by pairs, directly or through others."""

    def __init__(self, count: int) -> None:
        self._parents, self._sizes = list(range(count)), [1] * count

    def add(self, first: int, second: int) -> None:
        one, other = self._find(first), self._find(second)
        if one != other:
            self._parents[other] = one
            self._sizes[one] += self._sizes[other]

    def are_listed(self, first: int, second: int) -> bool:
        """Are they linked, among so many images that this is enough?"""
        one = self._find(first)
        return one == self._find(second) and self._sizes[one] > MAX_LISTED

    def find_groups(self, members: Iterable[int]) -> list[list[int]]:
        """Return these images, those that are linked to each other in one list."""
        groups: dict[int, list[int]] = {}
        for index in sorted(members):
            groups.setdefault(self._find(index), []).append(index)
        return [*groups.values()]

    def _find(self, index: int) -> int:
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index
