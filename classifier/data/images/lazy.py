"""Images selected by row from a larger collection, and read on indexing."""

from collections.abc import Iterator

import torch
from torch import Tensor


class LazyImages:
    """Base of MappedImages and StreamedImages: with a length, a shape and an order; an index gives a Tensor."""

    rows_N: Tensor
    shape_CHW: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.rows_N)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[n : n + 1][0] for n in range(len(self)))

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        """uint8 N x C x H x W."""
        raise NotImplementedError  # each of the two reads in its own way

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.shape_CHW))
