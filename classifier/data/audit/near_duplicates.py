"""Near duplicates: images that differ only by compression, size, brightness, a small crop or mirroring.

Three steps. First, the lowest frequencies of a small grey thumbnail (its discrete cosine transform, as in the
perceptual hash pHash) form a vector; cosine similarity finds the nearest few of each image. Mirroring flips the signs
of odd horizontal frequencies, so one pass compares both orientations. Second, the candidate pairs are compared at half
the size: their band-passed structure must correlate roughly. Third, the remaining pairs are compared at full size, with
the best-fitting small crop of either. Here faint structure must correlate as well as strong: every position is divided
by the local variation. That holds for the same scene, but not for a similar one that shares just one strong edge.
Icons and other tiny images of one kind share their outline: there a near duplicate must be much nearer than the next
neighbours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FREQUENCIES = 10
NEIGHBOURS = 8
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

    shorter_N: the shorter side of each image. Images of a single colour never match. Compares all pairs: O(N^2) time.
    """
    candidates = _find_candidates(*_frequency_vectors(thumbs_NHW), torch.from_numpy(shorter_N < SMALL_SIDE))
    first_P, second_P, mirrored_P = (column[_are_roughly_alike(thumbs_NHW, *candidates)] for column in candidates)
    pairs = []
    for start in range(0, len(first_P), PAIRS_PER_BLOCK):
        part = slice(start, start + PAIRS_PER_BLOCK)
        one, other = (torch.from_numpy(thumbs_NHW[index[part].numpy()]).float() for index in (first_P, second_P))
        other = torch.where(mirrored_P[part, None, None], other.flip(2), other)
        similarity_P = structure_similarity(one, other)
        for n in torch.nonzero(similarity_P >= MIN_CORRELATION).flatten().tolist():
            index = start + n
            pairs.append(
                Pair(int(first_P[index]), int(second_P[index]), float(similarity_P[n]), bool(mirrored_P[index]))
            )
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def find_pairs_by_features(features_ND: Tensor) -> list[Pair]:
    """Find near duplicates by a model's features, the most similar first: also those that find_pairs misses.

    The cosine of the centred features must be high, and much higher than to the next neighbours.
    """
    if len(features_ND) <= REFERENCE_NEIGHBOUR:
        return []
    centred_ND = torch.nn.functional.normalize(features_ND - features_ND.mean(0), dim=1)
    everywhere_N = torch.ones(len(centred_ND), dtype=torch.bool)
    first_P, second_P, _ = _find_candidates(
        centred_ND, torch.zeros(len(centred_ND), 1), everywhere_N, MAX_FEATURE_DISTANCE_RATIO
    )
    similarity_P = (centred_ND[first_P] * centred_ND[second_P]).sum(1)
    pairs = [
        Pair(first, second, similarity, mirrored=False, is_by_features=True)
        for first, second, similarity in zip(first_P.tolist(), second_P.tolist(), similarity_P.tolist(), strict=True)
        if similarity >= MIN_FEATURE_COSINE
    ]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def structure_similarity(one_PHW: Tensor, other_PHW: Tensor) -> Tensor:
    """Correlate the equalized structure of P pairs of images, with the best small crop of either on the other.

    Returns one correlation per pair.
    """
    side = one_PHW.shape[-1]
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
    count, side = len(thumbs_NHW), thumbs_NHW.shape[-1] // 2
    between, alike_P = (
        (_blur_matrix(side, FINE_SIGMA), _blur_matrix(side, COARSE_SIGMA)),
        torch.zeros(len(first_P), dtype=torch.bool),
    )
    structure_NHW = torch.empty(count if len(first_P) else 0, side, side, dtype=torch.float16)
    is_spread_N = torch.zeros(len(structure_NHW), dtype=torch.bool)
    for start in range(0, len(structure_NHW), BLOCK_SIZE):
        block_NHW = torch.from_numpy(thumbs_NHW[start : start + BLOCK_SIZE]).float()
        halves = block_NHW.view(-1, side, 2, side, 2).mean((2, 4))
        block_NHW = _standardize(_band_pass(halves, *between).flatten(1)).view_as(halves)
        structure_NHW[start : start + BLOCK_SIZE] = block_NHW
        is_spread_N[start : start + BLOCK_SIZE] = block_NHW.pow(4).sum((1, 2)) * side**2 * MIN_SPREAD <= 1
    for start in range(0, len(first_P), BLOCK_SIZE):
        part = slice(start, start + BLOCK_SIZE)
        one_PHW, other_PHW = (structure_NHW[index[part]].float() for index in (first_P, second_P))
        other_PHW = torch.where(mirrored_P[part, None, None], other_PHW.flip(2), other_PHW)
        is_spread_P = is_spread_N[first_P[part]] & is_spread_N[second_P[part]]
        alike_P[part] = ((one_PHW * other_PHW).sum((1, 2)) >= MIN_ROUGH_CORRELATION) & is_spread_P
    return alike_P


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both indices of each candidate pair, the smaller first, and whether the second is mirrored."""
    total = len(even_ND)
    count = min(NEIGHBOURS, total - 1)
    keys, ways, distances = [], [], []
    # Reused, since allocating memory for each block would cost more than the products.
    same, turned = torch.empty(2, min(BLOCK_SIZE, total), total).unbind()
    next_N = torch.full((total,), torch.inf)
    for start in range(0, total if count > 0 else 0, BLOCK_SIZE):
        rows = slice(start, start + BLOCK_SIZE)
        scores, other_way = same[: len(even_ND[rows])], turned[: len(even_ND[rows])]
        torch.mm(even_ND[rows], even_ND.T, out=scores)
        torch.mm(odd_ND[rows], odd_ND.T, out=other_way)
        own = torch.arange(len(scores))
        scores.add_(other_way.abs())
        scores[own, own + start] = -1
        values, neighbours = scores.topk(count, dim=1)
        if count >= REFERENCE_NEIGHBOUR:
            next_N[rows] = 1 - values[:, REFERENCE_NEIGHBOUR - 1]
        near = values >= MIN_COSINE
        one, other = (own[:, None] + start).expand_as(neighbours)[near], neighbours[near]
        keys.append(torch.minimum(one, other) * total + torch.maximum(one, other))
        ways.append(other_way.gather(1, neighbours)[near] < 0)
        distances.append(1 - values[near])
    if not keys:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool)
    unique, index = (torch.from_numpy(array) for array in np.unique(torch.cat(keys).numpy(), return_index=True))
    first_P, second_P = unique // total, unique % total
    next_P = torch.minimum(next_N[first_P], next_N[second_P])
    stands_out_P = (torch.cat(distances)[index] <= nearer * next_P) | ~(small_N[first_P] | small_N[second_P])
    return first_P[stands_out_P], second_P[stands_out_P], torch.cat(ways)[index][stands_out_P]


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
