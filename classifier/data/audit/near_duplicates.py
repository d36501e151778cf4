"""Near-duplicates: pictures that differ by compression, size, brightness, a small crop or a mirror alone.

In three steps. The lowest frequencies of a small grey copy (its discrete cosine transform, as in the perceptual hash
pHash) make a vector whose cosine finds the nearest few of each picture; mirroring turns the signs of odd horizontal
frequencies, so one pass compares both ways. Then each candidate pair is laid over one another, at half the size, and
what lies between fine and coarse structure must correlate somewhat. The few that are left are laid over one another at
full size, with the small crop of either that fits best. There faint structure must correlate as well as strong: every
place is divided by how much its surroundings vary. The same scene does that, and a similar one, whose one strong edge
lies in the same place, does not. Icons and stamp-sized pictures, all of one kind, show no more than the outline of it:
there a copy must be much nearer than the next ones are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FREQUENCIES = 10
NEIGHBOURS = 8
MIN_COSINE = 0.7
"""Cosine of the vectors from which a pair is looked at closely."""
MIN_ROUGH_CORRELATION = 0.7
"""Correlation of the structure at half the size, as the pictures lie, from which a pair is worth all crops: the same
picture has at least 0.72, nine of ten others have less (LOG.md)."""
MIN_SPREAD = 0.03
"""Share of the picture over which its structure must be spread (participation ratio): a corner of something on a plain
ground is like the corner of anything."""
MIN_CORRELATION = 0.88
"""Correlation of the structure, evened out, from which a pair counts as one picture."""
MIN_FEATURE_COSINE, MAX_FEATURE_DISTANCE_RATIO = 0.8, 0.15
"""Cosine of a model's features from which a pair counts as one picture, and NEARER of these."""
FAINT_LEVEL = 0.3
"""Grey values: structure fainter than this is not made as strong as the rest when it is evened out."""
CROP_SHARE = 0.05
FINE_SIGMA, COARSE_SIGMA = 1.2, 4.0
"""Deviations, in pixels of the copy, of the two Gaussians between which structure is compared."""
SMALL_SIDE, REFERENCE_NEIGHBOUR, MAX_DISTANCE_RATIO = 32, 5, 0.1
"""A pair with a picture that has fewer pixels than SMALL a side must lie at NEARER of the distance at which either has
its neighbour number NEXT."""
BLOCK_SIZE, PAIRS_PER_BLOCK = 256, 64


@dataclass(frozen=True)
class Pair:
    """Two pictures by their places, the first being the smaller; likeness: from SAME to 1."""

    first: int
    second: int
    similarity: float
    mirrored: bool
    is_by_features: bool = False
    """By a model's features."""


def find_pairs(thumbs_NHW: np.ndarray, sides_N: np.ndarray) -> list[Pair]:
    """All near-duplicates among N grey copies, uint8 N x S x S, the likest first. sides_N: the pictures' shorter ones.

    Pictures of one colour are like nothing. Every picture is compared with every other: N^2 time.
    """
    candidates = _find_candidates(*_frequency_vectors(thumbs_NHW), torch.from_numpy(sides_N < SMALL_SIDE))
    first_P, second_P, mirrored_P = (column[_filter_roughly_alike(thumbs_NHW, *candidates)] for column in candidates)
    found = []
    for start in range(0, len(first_P), PAIRS_PER_BLOCK):
        part = slice(start, start + PAIRS_PER_BLOCK)
        one, other = (torch.from_numpy(thumbs_NHW[index[part].numpy()]).float() for index in (first_P, second_P))
        other = torch.where(mirrored_P[part, None, None], other.flip(2), other)
        likeness_P = structure_similarity(one, other)
        for n in torch.nonzero(likeness_P >= MIN_CORRELATION).flatten().tolist():
            place = start + n
            found.append(Pair(int(first_P[place]), int(second_P[place]), float(likeness_P[n]), bool(mirrored_P[place])))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def find_pairs_by_features(features_ND: Tensor) -> list[Pair]:
    """Pairs that a model sees as one picture, the likest first: copies that were changed more than `pairs` allows.

    By the cosine of features about their mean, which must be high, and much higher than with the next ones.
    """
    if len(features_ND) <= REFERENCE_NEIGHBOUR:
        return []
    centred_ND = torch.nn.functional.normalize(features_ND - features_ND.mean(0), dim=1)
    everywhere_N = torch.ones(len(centred_ND), dtype=torch.bool)
    first_P, second_P, _ = _find_candidates(centred_ND, torch.zeros(len(centred_ND), 1), everywhere_N, MAX_FEATURE_DISTANCE_RATIO)
    likeness_P = (centred_ND[first_P] * centred_ND[second_P]).sum(1)
    found = [
        Pair(first, second, likeness, mirrored=False, is_by_features=True)
        for first, second, likeness in zip(first_P.tolist(), second_P.tolist(), likeness_P.tolist(), strict=True)
        if likeness >= MIN_FEATURE_COSINE
    ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def structure_similarity(one_PHW: Tensor, other_PHW: Tensor) -> Tensor:
    """How well two pictures' structure correlates, evened out, where the best small crop of either lies on the other: a
    number a pair.
    """
    side = one_PHW.shape[-1]
    ways = [torch.eye(side), *(_resampling(side, start, 1 - CROP_SHARE) for start in (0.0, CROP_SHARE / 2, CROP_SHARE))]
    # Resampled and blurred at once, in all ways: W x side rows.
    fine, coarse = (torch.cat([_blur(side, deviation) @ way for way in ways]) for deviation in (FINE_SIGMA, COARSE_SIGMA))
    between = _blur(side, FINE_SIGMA), _blur(side, COARSE_SIGMA)
    overlaps, likenesses = [], []
    for whole_PHW, cut_PHW in ((one_PHW, other_PHW), (other_PHW, one_PHW)):
        still_PHW = _band_pass(cut_PHW, *between)
        moved = _band_pass(whole_PHW, fine, coarse)
        # All ways down and across, of P pictures: P x WW x HW.
        moved_PWD = moved.view(-1, len(ways), side, len(ways), side).transpose(2, 3).reshape(len(moved), -1, side**2)
        overlap_PW = (moved_PWD @ _standardize(still_PHW.flatten(1))[:, :, None])[:, :, 0]
        sums_PW, squares_PW = moved_PWD.sum(2), torch.linalg.vector_norm(moved_PWD, dim=2) ** 2
        overlap_PW = overlap_PW / (squares_PW - sums_PW**2 / side**2).clamp_min(1e-6).sqrt()
        overlap_P, way_P = overlap_PW.max(1)
        best_PHW = moved_PWD[torch.arange(len(way_P)), way_P].view_as(still_PHW)
        overlaps.append(overlap_P)
        likenesses.append((_equalize(best_PHW) * _equalize(still_PHW)).sum(1))
    return torch.where(overlaps[0] > overlaps[1], *likenesses)


def _filter_roughly_alike(thumbs_NHW: np.ndarray, first_P: Tensor, second_P: Tensor, mirrored_P: Tensor) -> Tensor:
    """Which of the pairs are roughly alike as they lie, bool P."""
    count, side = len(thumbs_NHW), thumbs_NHW.shape[-1] // 2
    between, alike_P = (_blur(side, FINE_SIGMA), _blur(side, COARSE_SIGMA)), torch.zeros(len(first_P), dtype=torch.bool)
    structure_NHW = torch.empty(count if len(first_P) else 0, side, side, dtype=torch.float16)
    tells_N = torch.zeros(len(structure_NHW), dtype=torch.bool)
    for start in range(0, len(structure_NHW), BLOCK_SIZE):
        block_NHW = torch.from_numpy(thumbs_NHW[start : start + BLOCK_SIZE]).float()
        halves = block_NHW.view(-1, side, 2, side, 2).mean((2, 4))
        block_NHW = _standardize(_band_pass(halves, *between).flatten(1)).view_as(halves)
        structure_NHW[start : start + BLOCK_SIZE] = block_NHW
        tells_N[start : start + BLOCK_SIZE] = block_NHW.pow(4).sum((1, 2)) * side**2 * MIN_SPREAD <= 1
    for start in range(0, len(first_P), BLOCK_SIZE):
        part = slice(start, start + BLOCK_SIZE)
        one_PHW, other_PHW = (structure_NHW[index[part]].float() for index in (first_P, second_P))
        other_PHW = torch.where(mirrored_P[part, None, None], other_PHW.flip(2), other_PHW)
        tells_P = tells_N[first_P[part]] & tells_N[second_P[part]]
        alike_P[part] = ((one_PHW * other_PHW).sum((1, 2)) >= MIN_ROUGH_CORRELATION) & tells_P
    return alike_P


def _frequency_vectors(thumbs_NHW: np.ndarray) -> tuple[Tensor, Tensor]:
    """The low frequencies of each picture, of even and of odd horizontal number, together of length 1 (or 0)."""
    side = thumbs_NHW.shape[-1]
    places = (torch.arange(side) + 0.5) * torch.pi / side
    waves = torch.cos(torch.arange(FREQUENCIES)[:, None] * places)
    parts = []
    for start in range(0, len(thumbs_NHW), BLOCK_SIZE):
        block = torch.from_numpy(np.ascontiguousarray(thumbs_NHW[start : start + BLOCK_SIZE])).float()
        table = waves @ block @ waves.T
        table[:, 0, 0] = 0  # brightness
        norms = table.flatten(1).norm(dim=1)
        norms[norms < side] = torch.inf  # a picture of one colour
        parts.append(table / norms[:, None, None])
    table = torch.cat(parts) if parts else torch.zeros(0, FREQUENCIES, FREQUENCIES)
    return table[:, :, ::2].flatten(1), table[:, :, 1::2].flatten(1)


def _find_candidates(
    even_ND: Tensor, odd_ND: Tensor, small_N: Tensor, nearer: float = MAX_DISTANCE_RATIO
) -> tuple[Tensor, Tensor, Tensor]:
    """Both places of each pair that is looked at closely, the smaller first, and whether the second is mirrored."""
    total = len(even_ND)
    count = min(NEIGHBOURS, total - 1)
    keys, ways, distances = [], [], []
    same, turned = torch.empty(2, min(BLOCK_SIZE, total), total).unbind()  # fresh memory a block costs more than the sums
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
    """What lies between the two blurs: the structure."""
    return fine @ images_PHW @ fine.T - coarse @ images_PHW @ coarse.T


def _equalize(band_PHW: Tensor) -> Tensor:
    """Divided by how much it varies around each place, P x HW with mean 0 and length 1."""
    blur = _blur(band_PHW.shape[-1], COARSE_SIGMA)
    around_PHW = (blur @ band_PHW.square() @ blur.T).sqrt()
    return _standardize((band_PHW / (around_PHW + FAINT_LEVEL)).flatten(1))


def _standardize(values_PD: Tensor) -> Tensor:
    """With mean 0 and length 1."""
    centred_PD = values_PD - values_PD.mean(1, keepdim=True)
    return centred_PD / centred_PD.norm(dim=1, keepdim=True).clamp_min(1e-3)


def _blur(side: int, deviation: float) -> Tensor:
    """A matrix that blurs along one axis; its rows have the sum 1."""
    places = torch.arange(side, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
    weights[weights < 1e-6] = 0  # the tails are numbers so small that processors are slow with them
    return weights / weights.sum(1, keepdim=True)


def _resampling(side: int, start: float, length: float) -> Tensor:
    """A matrix that stretches a part of an axis, given as shares of it, over the whole (linear interpolation)."""
    places = (start + (torch.arange(side) + 0.5) / side * length) * side - 0.5
    places = places.clamp(0, side - 1)
    low = places.floor().clamp(max=side - 2).long()
    matrix = torch.zeros(side, side)
    own = torch.arange(side)
    matrix[own, low] = 1 - (places - low)
    matrix[own, low + 1] += places - low
    return matrix
