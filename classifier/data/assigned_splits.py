"""The split of every image that a data set ever had: `splits.safetensors` of a run, for later runs (`data.split_from`).

Images are recognised by the digest of their content, or by the hash of their pixels if they were saved in another
format without loss; in a stream by their names.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.data.split_names import SPLITS, UNASSIGNED
from classifier.errors import DataError, in_short
from classifier.storage.atomic import fsync

FILE = "splits.safetensors"
_DIGESTS, _HASHES, _SPLITS = "content", "pixels", "split"


@dataclass(frozen=True, eq=False)
class AssignedSplits:
    """M images. digests_M, hashes_M: V16; hashes are zeros where the pixels were not seen. splits_M: int8."""

    digests_M: np.ndarray
    hashes_M: np.ndarray
    splits_M: np.ndarray

    @classmethod
    def of_images(
        cls, digests_N: np.ndarray, hashes_N: np.ndarray | None, splits_N: np.ndarray, earlier: "AssignedSplits | None"
    ) -> "AssignedSplits":
        """Return the splits of these images, each content once, and of the earlier ones that are not among them."""
        hashes_N = np.zeros(len(digests_N), "V16") if hashes_N is None else hashes_N
        columns = [(digests_N, hashes_N, splits_N)]
        if earlier is not None:
            columns.append((earlier.digests_M, earlier.hashes_M, earlier.splits_M))
        digests_M, hashes_M, splits_M = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        rows = np.flatnonzero(splits_M != UNASSIGNED)
        rows = rows[np.sort(np.unique(digests_M[rows], return_index=True)[1])]
        return cls(digests_M[rows], hashes_M[rows], splits_M[rows].astype(np.int8))

    def extend(self, earlier: "AssignedSplits | None") -> "AssignedSplits":
        """Return these, and the earlier ones that are not among them."""
        return AssignedSplits.of_images(self.digests_M, self.hashes_M, self.splits_M, earlier)

    @classmethod
    def read(cls, path: Path) -> "AssignedSplits":
        """Read the file, or that of a run folder. DataError if there is none, or it is corrupted."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = path.expanduser()
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise DataError(
                f"data.split_from {path}: there is no {FILE}: give the folder of a run that this version trained"
            )
        try:
            tensors = load_file(file)
            digests_M, hashes_M = (
                np.ascontiguousarray(tensors[name]).view("V16").reshape(-1) for name in (_DIGESTS, _HASHES)
            )
            splits_M = tensors[_SPLITS]
            if (
                not digests_M.shape == hashes_M.shape == splits_M.shape
                or not np.isin(splits_M, range(len(SPLITS))).all()
            ):
                raise ValueError("its tensors do not fit together")
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"data.split_from {file} is corrupted ({in_short(error)}): give the folder of another run"
            ) from None
        return cls(digests_M, hashes_M, splits_M.astype(np.int8))

    def write(self, folder: Path) -> None:
        """Write the file into a folder, atomically. OSError if that fails."""
        from safetensors.numpy import save_file

        part = folder / f".{FILE}.{os.getpid()}.part"
        tensors = {
            _DIGESTS: self.digests_M.view(np.uint8).reshape(-1, 16),
            _HASHES: self.hashes_M.view(np.uint8).reshape(-1, 16),
            _SPLITS: self.splits_M,
        }
        try:
            save_file(tensors, part)
            fsync(part)
            os.replace(part, folder / FILE)
        finally:
            part.unlink(missing_ok=True)

    def recall(self, digests_N: np.ndarray, hashes_N: np.ndarray | None) -> np.ndarray:
        """Return the split of these images, int8; UNASSIGNED for new ones."""
        by_digest = dict(zip(self.digests_M.tolist(), self.splits_M.tolist(), strict=True))
        splits_N = np.array([by_digest.get(digest, UNASSIGNED) for digest in digests_N.tolist()], np.int8)
        if hashes_N is not None:
            by_hash = dict(zip(self.hashes_M.tolist(), self.splits_M.tolist(), strict=True))
            by_hash.pop(bytes(16), None)
            new = np.flatnonzero(splits_N == UNASSIGNED)
            splits_N[new] = [by_hash.get(hash_, UNASSIGNED) for hash_ in hashes_N[new].tolist()]
        return splits_N

    def recall_units(
        self, digests_N: np.ndarray, hashes_N: np.ndarray | None, content_N: np.ndarray, unit_N: np.ndarray
    ) -> np.ndarray:
        """Return the splits that these images already had, int8; UNASSIGNED for new ones, of which none is known.

        A new image gets the split of those with its pixels, else of those of its unit (training, if they differ).
        content_N, unit_N: see SplitUnits.
        """
        splits_N = self.recall(digests_N, hashes_N)
        for number_N in (content_N, unit_N):
            known = np.flatnonzero(splits_N != UNASSIGNED)
            least_U = np.full(int(number_N.max()) + 1, len(SPLITS), np.int8)
            np.minimum.at(least_U, number_N[known], splits_N[known])
            follows_N = (splits_N == UNASSIGNED) & (least_U[number_N] < len(SPLITS))
            splits_N[follows_N] = least_U[number_N][follows_N]
        return splits_N
