"""The graph that is exported: a model with all that surrounds it, from uint8 images to calibrated probabilities."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classifier.export.layer_statistics import LayerStatistics
from classifier.inference.scorer import Scorer


class Graph(nn.Module):
    """Normalisation, the model, softmax or sigmoid, mirrored views, temperature: as Scorer.predict_probabilities.

    Takes uint8 images_NCHW and, if the model takes columns, the inputs of data.columns.graph_inputs; returns
    probabilities_NK, float32, and of each of `layers` the stats_NF of the first view.
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(
        self, model: nn.Module, scorer: Scorer, layers: Sequence[str], *, has_exact_statistics: bool = False
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        self.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.scorer, self.layers = scorer, tuple(layers)
        std = torch.tensor([value or 1.0 for value in scorer.std], dtype=torch.float64)
        mean = torch.tensor(scorer.mean, dtype=torch.float64)
        self.register_buffer("scale_C11", (1 / (255 * std)).float()[:, None, None])
        self.register_buffer("shift_C11", (-mean / std).float()[:, None, None])
        shape_CHW = (len(mean), scorer.size, scorer.size)
        self.statistics = LayerStatistics(self.model, layers, shape_CHW, is_exact=has_exact_statistics)

    def forward(self, images_NCHW: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities_NK and the layers' statistics."""
        images_NCHW = images_NCHW.float() * self.scale_C11 + self.shift_C11
        others = (torch.cat(columns, 1),) if columns else ()
        log_probabilities_NK = self.scorer.log_probabilities(self.model(images_NCHW, *others))
        if self.scorer.test_flip:
            flipped_NK = self.scorer.log_probabilities(self.model(images_NCHW.flip(-1), *others))
            log_probabilities_NK = torch.stack([log_probabilities_NK, flipped_NK]).logsumexp(0) - math.log(2)
        return self.scorer.apply_temperature(log_probabilities_NK).exp(), *self.statistics()
