"""Which images belong together: those with the same pixels, and those of groups that the same pixels connect."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier.data.assigned_splits import AssignedSplits
from classifier.data.labels.label_sets import pair_labels


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitInput:
    """What a draw needs to know of N images: digests of their contents (V16), and what their source says of them."""

    name: str
    class_names: Sequence[str]
    ids: Sequence[str]
    digests_N: np.ndarray
    labels_N: np.ndarray
    supplied_N: np.ndarray
    """int8, an index of SPLITS or UNASSIGNED."""
    groups: Sequence[str] | None = None
    """N names; images that share one stay in one split."""
    hashes_N: np.ndarray | None = None
    """V16, equal for images with the same pixels; if None, images are compared by their digests."""
    assigned: AssignedSplits | None = None
    """Splits that stay as they are; folds do not use them."""
    label_sets_MK: np.ndarray | None = None
    """bool, the sets of classes that labels_N stand for; None if they are classes."""


class SplitUnits:
    """Images as units that stay in one split: with equal pixels, or of groups that equal pixels connect.

    content_N: an image's pixels (or content, where the pixels are not known) as a number; unit_N: its unit; u_U: a
    unit's number in [0, 1); image_P and class_P: the pairs of pair_labels.
    """

    def __init__(self, images: SplitInput, seed: int) -> None:
        self.content_N, first_C = number_contents(images.digests_N if images.hashes_N is None else images.hashes_N)
        if images.groups is None:
            self.unit_N, names = self.content_N, _name_contents(self.content_N, images.digests_N)
        else:
            self.unit_N, names = _connect_groups(self.content_N, images.groups)
        key = str(seed).encode()
        hashes = bytearray()
        for name in names:
            hashes += hashlib.blake2b(name, digest_size=8, key=key).digest()
        # 53 bits: what a float holds exactly, so that u is never rounded up to 1
        self.u_U = (np.frombuffer(hashes, "<u8") >> np.uint64(11)) / 2.0**53
        self.shared_U = _have_several_labels(self.unit_N, images.labels_N, len(names))
        self.shared_C = _have_several_labels(self.content_N, images.labels_N, len(first_C))
        self.image_P, self.class_P = pair_labels(images.labels_N, images.label_sets_MK)
        self._by_class_P = self.image_P[np.argsort(self.class_P, kind="stable")]
        self._ends_K = np.cumsum(np.bincount(self.class_P, minlength=len(images.class_names)))

    def images_of(self, k: int) -> np.ndarray:
        """Return the indices of the images of a class, in ascending order."""
        return self._by_class_P[self._ends_K[k - 1] if k else 0 : self._ends_K[k]]

    def classes_by_size(self) -> list[int]:
        """Return the classes, those with the fewest images first."""
        return np.argsort(np.diff(self._ends_K, prepend=0), kind="stable").tolist()


def number_contents(digests_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number contents as they first occur; return each image's content number, and each content's first index."""
    _, first, inverse_N = np.unique(digests_N, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[inverse_N], first[order]


def _name_contents(content_N: np.ndarray, digests_N: np.ndarray) -> np.ndarray:
    """Return the least digest of each content's files, which is the same in any order of them."""
    rank_N = np.unique(digests_N, return_inverse=True)[1]
    order_N = np.lexsort((rank_N, content_N))
    return digests_N[order_N[np.unique(content_N[order_N], return_index=True)[1]]]


def _connect_groups(content_N: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, list[bytes]]:
    """Return each image's unit, where groups that share a content are one; and the name of each unit's first group, so
    that a growing group stays in its split."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, group_N = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    nodes = len(names) + int(content_N.max()) + 1
    edges = coo_array((np.ones(len(content_N), np.int8), (group_N, len(names) + content_N)), shape=(nodes, nodes))
    count, unit_of = connected_components(edges, directed=False)
    first = np.full(count, len(names))
    np.minimum.at(first, unit_of[: len(names)], np.arange(len(names)))
    return unit_of[group_N].astype(np.int64), [str(names[n]).encode() for n in first]


def _have_several_labels(unit_N: np.ndarray, labels_N: np.ndarray, units: int) -> np.ndarray:
    pairs = np.unique(np.stack([unit_N, labels_N]), axis=1)
    return np.bincount(pairs[0], minlength=units) > 1
