"""Which images to label next: typical ones while labels are few, then those of which the model is least certain.

Of near duplicates one is chosen at most, and none if one of them has a label.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.label.guess import Guesses
from classifier.label.pool import Pool
from classifier.label.typical import choose_typical
from classifier.label.uncertain import choose_uncertain, compute_uncertainty

FEW_LABELS = 10
"""With fewer labels a class, on average, typical images are chosen (LOG.md)."""
Way = Literal["typical", "uncertain"]


@dataclass(frozen=True)
class Choice:
    """Indices of images of the pool, the most urgent first; and how they were chosen."""

    images: list[int]
    way: Way


def choose(
    pool: Pool,
    guesses: Guesses | None,
    labelled: Collection[int],
    excluded: Collection[int],
    count: int,
    seed: int,
    *,
    earlier: int = 0,
    is_multilabel: bool = False,
) -> Choice:
    """Choose up to `count` images; fewer if no more are left. Deterministic for a seed.

    labelled: images that have a label. excluded: others, which somebody has or has skipped.
    earlier: images with which the model was trained, which are not in the pool.
    """
    is_open_N = np.zeros(len(pool.files), bool)
    is_open_N[np.unique(pool.groups_N, return_index=True)[1]] = True
    closed = [*{*labelled, *excluded}]
    is_open_N[np.isin(pool.groups_N, pool.groups_N[closed])] = False
    classes = len(guesses.class_names) if guesses else 0
    if guesses is None or len(labelled) + earlier < FEW_LABELS * classes:
        # Images that may not be chosen count as labelled: their clusters are covered, or will be.
        considered = np.flatnonzero(is_open_N | np.isin(np.arange(len(is_open_N)), closed))
        directions_MF = pool.directions[considered]
        known = np.flatnonzero(~is_open_N[considered]).tolist()
        return Choice(considered[choose_typical(directions_MF, known, count, seed)].tolist(), "typical")
    uncertainty_N = compute_uncertainty(guesses.probabilities_NK, is_multilabel=is_multilabel)
    return Choice(choose_uncertain(pool.directions, uncertainty_N, is_open_N, count, seed), "uncertain")
