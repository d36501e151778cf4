"""Near duplicates: images that differ only by compression, size, brightness, a small crop or mirroring.

Three steps. First, the lowest frequencies of a small grey thumbnail (its discrete cosine transform, as in the
perceptual hash pHash) form a vector; cosine similarity finds the nearest few of each image. Mirroring flips the signs
of odd horizontal frequencies, so one pass compares both orientations. Second, the candidate pairs are compared at half
the size: their band-passed structure must correlate roughly. Third, the remaining pairs are compared at full size, with
the best-fitting small crop of either. Here faint structure must correlate as well as strong: every position is divided
by the local variation. That holds for the same scene, but not for a similar one that shares just one strong edge.
Icons and other tiny images of one kind share their outline: there a near duplicate must be much nearer than the next
neighbours. Where very many images resemble each other, time and findings are bounded: crowds.py finds their candidates,
and images that are linked by others already are not compared.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classifier.data.audit.crowds import Links, split_crowds

FREQUENCIES = 10
NEIGHBOURS, CROWD_NEIGHBOURS = 8, 3
MIN_COSINE = 0.7
"""Minimum cosine of the frequency vectors of a candidate pair."""
MIN_ROUGH_CORRELATION = 0.7
"""Minimum correlation of the structure at half the size, uncropped, for a pair to be compared with all crops: the same
image has at least 0.72, nine of ten others have less (LOG.md)."""
MIN_SPREAD = 0.03
"""Share of the image over which its structure must be spread (participation ratio): a corner of an object on a plain
background resembles any other corner."""
MIN_CORRELATION = 0.88
"""Minimum correlation of the equalized structure of near duplicates."""
MIN_FEATURE_COSINE, MAX_FEATURE_DISTANCE_RATIO = 0.8, 0.15
"""Minimum cosine of a model's features of near duplicates, and their MAX_DISTANCE_RATIO."""
FAINT_LEVEL = 0.3
"""Grey values: structure fainter than this is not fully amplified when it is equalized."""
CROP_SHARE = 0.05
FINE_SIGMA, COARSE_SIGMA = 1.2, 4.0
"""Standard deviations, in pixels of the thumbnail, of the two Gaussians of the band-pass filter."""
SMALL_SIDE, REFERENCE_NEIGHBOUR, MAX_DISTANCE_RATIO = 32, 5, 0.1
"""If an image of a pair has a shorter side below SMALL_SIDE pixels, the pair's distance must be at most
MAX_DISTANCE_RATIO of the distance from either to its neighbour number REFERENCE_NEIGHBOUR."""
BLOCK_SIZE, PAIRS_PER_BLOCK = 256, 64


@dataclass(frozen=True)
class Pair:
    """Indices of two images, first < second. similarity: from MIN_CORRELATION to 1."""

    first: int
    second: int
    similarity: float
    mirrored: bool
    is_by_features: bool = False
    """Found by a model's features."""


def find_pairs(thumbs_NHW: np.ndarray, shorter_N: np.ndarray) -> list[Pair]:
    """Find all near duplicates among N grey thumbnails, uint8 N x S x S, the most similar first.

    shorter_N: the shorter side of each image. Images of a single colour never match. Among more than MAX_LISTED images
    that are all alike, only so many pairs are found as link them. Compares all pairs outside crowds: O(N^2) time.
    """
    even_ND, odd_ND = _frequency_vectors(thumbs_NHW)
    candidates = _find_candidates(even_ND, odd_ND, torch.from_numpy(shorter_N < SMALL_SIDE))
    first_P, second_P, *_ = candidates
    links, pairs = Links(len(thumbs_NHW)), []
    for start in range(0, len(first_P), BLOCK_SIZE):
        part = slice(start, start + BLOCK_SIZE)
        is_new = [
            not links.are_listed(*pair) for pair in zip(first_P[part].tolist(), second_P[part].tolist(), strict=True)
        ]
        for pair in _compare(thumbs_NHW, *(column[part][torch.tensor(is_new)] for column in candidates)):
            links.add(pair.first, pair.second)
            pairs.append(pair)
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _compare(
    thumbs_NHW: np.ndarray, first_P: Tensor, second_P: Tensor, mirrored_P: Tensor, crowded_P: Tensor
) -> Iterator[Pair]:
    """Yield the near duplicates among at most BLOCK_SIZE candidate pairs; in crowds, crops are not searched."""
    if not len(first_P):
        return
    alike_P = _are_roughly_alike(thumbs_NHW, first_P, second_P, mirrored_P)
    for has_crops in (True, False):
        index_Q = (alike_P & (crowded_P != has_crops)).nonzero()[:, 0]
        for index_B in index_Q.split(PAIRS_PER_BLOCK) if len(index_Q) else ():
            one, other = (
                torch.from_numpy(thumbs_NHW[column[index_B].numpy()]).float() for column in (first_P, second_P)
            )
            other = torch.where(mirrored_P[index_B, None, None], other.flip(2), other)
            similarity_B = structure_similarity(one, other, has_crops=has_crops)
            for index, similarity in zip(index_B.tolist(), similarity_B.tolist(), strict=True):
                if similarity >= MIN_CORRELATION:
                    yield Pair(int(first_P[index]), int(second_P[index]), similarity, bool(mirrored_P[index]))


def find_pairs_by_features(features_ND: Tensor) -> list[Pair]:
    """Find near duplicates by a model's features, the most similar first: also those that find_pairs misses.

    The cosine of the centred features must be high, and much higher than to the next neighbours.
    """
    if len(features_ND) <= REFERENCE_NEIGHBOUR:
        return []
    centred_ND = torch.nn.functional.normalize(features_ND - features_ND.mean(0), dim=1)
    everywhere_N = torch.ones(len(centred_ND), dtype=torch.bool)
    first_P, second_P, *_ = _find_candidates(
        centred_ND, torch.zeros(len(centred_ND), 1), everywhere_N, MAX_FEATURE_DISTANCE_RATIO
    )
    similarity_P = (centred_ND[first_P] * centred_ND[second_P]).sum(1)
    pairs = [
        Pair(first, second, similarity, mirrored=False, is_by_features=True)
        for first, second, similarity in zip(first_P.tolist(), second_P.tolist(), similarity_P.tolist(), strict=True)
        if similarity >= MIN_FEATURE_COSINE
    ]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def structure_similarity(one_PHW: Tensor, other_PHW: Tensor, *, has_crops: bool = True) -> Tensor:
    """Correlate the equalized structure of P pairs of images, with the best small crop of either on the other.

    Returns one correlation per pair.
    """
    side = one_PHW.shape[-1]
    if not has_crops:
        between = _blur_matrix(side, FINE_SIGMA), _blur_matrix(side, COARSE_SIGMA)
        one_PD, other_PD = (_equalize(_band_pass(images_PHW, *between)) for images_PHW in (one_PHW, other_PHW))
        return (one_PD * other_PD).sum(1)
    ways = [
        torch.eye(side),
        *(_resampling_matrix(side, start, 1 - CROP_SHARE) for start in (0.0, CROP_SHARE / 2, CROP_SHARE)),
    ]
    # Resampling and blur in one matrix, for all W ways to crop: W x side rows.
    fine, coarse = (
        torch.cat([_blur_matrix(side, deviation) @ way for way in ways]) for deviation in (FINE_SIGMA, COARSE_SIGMA)
    )
    between = _blur_matrix(side, FINE_SIGMA), _blur_matrix(side, COARSE_SIGMA)
    overlaps, similarities = [], []
    for whole_PHW, cut_PHW in ((one_PHW, other_PHW), (other_PHW, one_PHW)):
        still_PHW = _band_pass(cut_PHW, *between)
        moved = _band_pass(whole_PHW, fine, coarse)
        # All vertical and horizontal crops of P images: P x WW x HW.
        moved_PWD = moved.view(-1, len(ways), side, len(ways), side).transpose(2, 3).reshape(len(moved), -1, side**2)
        overlap_PW = (moved_PWD @ _standardize(still_PHW.flatten(1))[:, :, None])[:, :, 0]
        sums_PW, squares_PW = moved_PWD.sum(2), torch.linalg.vector_norm(moved_PWD, dim=2) ** 2
        overlap_PW = overlap_PW / (squares_PW - sums_PW**2 / side**2).clamp_min(1e-6).sqrt()
        overlap_P, way_P = overlap_PW.max(1)
        best_PHW = moved_PWD[torch.arange(len(way_P)), way_P].view_as(still_PHW)
        overlaps.append(overlap_P)
        similarities.append((_equalize(best_PHW) * _equalize(still_PHW)).sum(1))
    return torch.where(overlaps[0] > overlaps[1], *similarities)


def _are_roughly_alike(thumbs_NHW: np.ndarray, first_P: Tensor, second_P: Tensor, mirrored_P: Tensor) -> Tensor:
    """Return which pairs are roughly alike without cropping, bool P."""
    side = thumbs_NHW.shape[-1] // 2
    between = _blur_matrix(side, FINE_SIGMA), _blur_matrix(side, COARSE_SIGMA)
    structures, are_spread = [], []
    for index in (first_P, second_P):
        halves = torch.nn.functional.avg_pool2d(torch.from_numpy(thumbs_NHW[index.numpy()]).float(), 2)
        structure_PHW = _standardize(_band_pass(halves, *between).flatten(1)).view_as(halves)
        are_spread.append(structure_PHW.pow(4).sum((1, 2)) * side**2 * MIN_SPREAD <= 1)
        structures.append(structure_PHW.half().float())
    one_PHW, other_PHW = structures
    other_PHW = torch.where(mirrored_P[:, None, None], other_PHW.flip(2), other_PHW)
    return ((one_PHW * other_PHW).sum((1, 2)) >= MIN_ROUGH_CORRELATION) & are_spread[0] & are_spread[1]


def _frequency_vectors(thumbs_NHW: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the low frequencies of each image, with even and odd horizontal index, jointly of length 1 (or 0)."""
    side = thumbs_NHW.shape[-1]
    positions = (torch.arange(side) + 0.5) * torch.pi / side
    waves = torch.cos(torch.arange(FREQUENCIES)[:, None] * positions)
    parts = []
    for start in range(0, len(thumbs_NHW), BLOCK_SIZE):
        block = torch.from_numpy(np.ascontiguousarray(thumbs_NHW[start : start + BLOCK_SIZE])).float()
        table = waves @ block @ waves.T
        table[:, 0, 0] = 0  # brightness
        norms = table.flatten(1).norm(dim=1)
        norms[norms < side] = torch.inf  # a single colour
        parts.append(table / norms[:, None, None])
    table = torch.cat(parts) if parts else torch.zeros(0, FREQUENCIES, FREQUENCIES)
    return table[:, :, ::2].flatten(1), table[:, :, 1::2].flatten(1)


def _find_candidates(
    even_ND: Tensor, odd_ND: Tensor, small_N: Tensor, nearer: float = MAX_DISTANCE_RATIO
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both indices of each candidate pair, the smaller first; whether the second is mirrored; and whether both
    are in one crowd. The nearest pair comes first."""
    total = len(even_ND)
    apart_M, *parts = split_crowds(even_ND, odd_ND)
    found = [_Neighbours.find(even_ND, odd_ND, apart_M, NEIGHBOURS)]
    found += [_Neighbours.find(even_ND, odd_ND, part_M, CROWD_NEIGHBOURS) for part_M in parts]
    next_N = torch.full((total,), torch.inf)
    for neighbours in found:
        next_N[neighbours.members_M] = torch.minimum(next_N[neighbours.members_M], neighbours.next_M)
    key_P, way_P, distance_P = (
        torch.cat([getattr(neighbours, name) for neighbours in found]) for name in ("key_P", "way_P", "distance_P")
    )
    index = torch.from_numpy(np.unique(key_P.numpy(), return_index=True)[1])
    index = index[distance_P[index].argsort(stable=True)]
    first_P, second_P = key_P[index] // total, key_P[index] % total
    next_P = torch.minimum(next_N[first_P], next_N[second_P])
    stands_out_P = (distance_P[index] <= nearer * next_P) | ~(small_N[first_P] | small_N[second_P])
    columns = first_P, second_P, way_P[index], index >= len(found[0].key_P)
    return columns[0][stands_out_P], columns[1][stands_out_P], columns[2][stands_out_P], columns[3][stands_out_P]


@dataclass(frozen=True)
class _Neighbours:
    """The nearest neighbours of M of N images among themselves. key_P: first * N + second, of each candidate pair.

    way_P: is the second mirrored? next_M: the distance of each image to its neighbour number REFERENCE_NEIGHBOUR.
    """

    members_M: Tensor
    next_M: Tensor
    key_P: Tensor
    way_P: Tensor
    distance_P: Tensor

    @classmethod
    def find(cls, even_ND: Tensor, odd_ND: Tensor, members_M: Tensor, count: int) -> "_Neighbours":
        total, members = len(even_ND), len(members_M)
        is_all = members == total
        even_MD, odd_MD = (even_ND, odd_ND) if is_all else (even_ND[members_M], odd_ND[members_M])
        listed, count = count, min(max(count, REFERENCE_NEIGHBOUR), members - 1)
        keys, ways, distances = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.bool)], []
        # Reused, since allocating memory for each block would cost more than the products.
        same, turned = torch.empty(2, min(BLOCK_SIZE, members), members).unbind()
        next_M = torch.full((members,), torch.inf)
        for start in range(0, members if count > 0 else 0, BLOCK_SIZE):
            rows = slice(start, start + BLOCK_SIZE)
            scores, other_way = same[: len(even_MD[rows])], turned[: len(even_MD[rows])]
            torch.mm(even_MD[rows], even_MD.T, out=scores)
            torch.mm(odd_MD[rows], odd_MD.T, out=other_way)
            own = torch.arange(len(scores))
            scores.add_(other_way.abs())
            scores[own, own + start] = -1
            values, neighbours = scores.topk(count, dim=1)
            if count >= REFERENCE_NEIGHBOUR:
                next_M[rows] = 1 - values[:, REFERENCE_NEIGHBOUR - 1]
            near = values >= MIN_COSINE
            near[:, listed:] = False
            one = members_M[(own[:, None] + start).expand_as(neighbours)[near]]
            other = members_M[neighbours[near]]
            keys.append(torch.minimum(one, other) * total + torch.maximum(one, other))
            ways.append(other_way.gather(1, neighbours)[near] < 0)
            distances.append(1 - values[near])
        return cls(members_M, next_M, torch.cat(keys), torch.cat(ways), torch.cat([torch.empty(0), *distances]))


def _band_pass(images_PHW: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """Return the difference of the two blurs: the structure."""
    return fine @ images_PHW @ fine.T - coarse @ images_PHW @ coarse.T


def _equalize(band_PHW: Tensor) -> Tensor:
    """Divide by the local variation: P x HW with mean 0 and length 1."""
    blur = _blur_matrix(band_PHW.shape[-1], COARSE_SIGMA)
    around_PHW = (blur @ band_PHW.square() @ blur.T).sqrt()
    return _standardize((band_PHW / (around_PHW + FAINT_LEVEL)).flatten(1))


def _standardize(values_PD: Tensor) -> Tensor:
    """Scale each row to mean 0 and length 1."""
    centred_PD = values_PD - values_PD.mean(1, keepdim=True)
    return centred_PD / centred_PD.norm(dim=1, keepdim=True).clamp_min(1e-3)


@functools.cache
def _blur_matrix(side: int, deviation: float) -> Tensor:
    """Return a matrix that blurs along one axis; its rows sum to 1."""
    positions = torch.arange(side, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((positions[:, None] - positions) / deviation) ** 2)
    weights[weights < 1e-6] = 0  # denormal numbers would be slow
    return weights / weights.sum(1, keepdim=True)


def _resampling_matrix(side: int, start: float, length: float) -> Tensor:
    """Return a matrix that stretches part of an axis, given as shares, over all of it (linear interpolation)."""
    positions = (start + (torch.arange(side) + 0.5) / side * length) * side - 0.5
    positions = positions.clamp(0, side - 1)
    low = positions.floor().clamp(max=side - 2).long()
    matrix = torch.zeros(side, side)
    own = torch.arange(side)
    matrix[own, low] = 1 - (positions - low)
    matrix[own, low + 1] += positions - low
    return matrix
