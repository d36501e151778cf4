"""A model of images and columns as one of images alone, whose columns stand beside it."""

from torch import Tensor, nn


class WithColumns(nn.Module):
    """`model` (models.fusion) with columns: what varies images, such as a heatmap, needs none.

    columns: columns_F, of all images, or columns_NF, of a batch of so many.
    """

    def __init__(self, model: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.model, self._columns = model, columns

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        columns_NF = self._columns.to(images_NCHW.device).expand(len(images_NCHW), -1)
        return self.model(images_NCHW, columns_NF)
