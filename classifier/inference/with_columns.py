"""A model of images and columns as one of images alone, beside which the same row of columns stands."""

from torch import Tensor, nn


class WithColumns(nn.Module):
    """`model` (models.fusion), to which columns_F belong: what varies images, such as a heatmap, needs no columns."""

    def __init__(self, model: nn.Module, columns_F: Tensor) -> None:
        super().__init__()
        self.model, self._columns_F = model, columns_F

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        columns_NF = self._columns_F.to(images_NCHW.device).expand(len(images_NCHW), -1)
        return self.model(images_NCHW, columns_NF)
