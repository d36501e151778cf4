"""The head of ordered grades: one latent value per image, and thresholds that divide these into grades.

The proportional odds model: P(grade <= k) = sigmoid(threshold_k - value). P. McCullagh, "Regression models for ordinal
data", 1980. Its outputs are the logarithms of the grades' probabilities, which are logits like any other: softmax gives
the probabilities, cross-entropy is the likelihood.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.errors import ModelError
from classifier.models.head import DropoutLinear, head_modules, replace_module

# How many times as fast as other parameters gaps are learned: as fast, they stayed too narrow in 200 steps of AdamW, so
# that the most likely grade was too often the first or the last; 15 times as fast, they grew too wide (LOG.md).
GAP_SPEED = 4
# A gap is never smaller, so that no grade is impossible.
MIN_GAP = 1e-4
# The ends of the scale: no value comes near it.
_FAR = 1e6
# Where softplus is 1.
_ONE = math.log(math.e - 1)


class OrdinalHead(nn.Linear):
    """Features (N, F) to the log-probabilities (N, K) of K ordered grades, with dropout p on the features.

    The weight has one row. gaps: parameters of the K - 2 gaps between thresholds, which ascend whatever is learned. All
    grades are equally likely where all parameters are zero.
    """

    def __init__(self, features: int, grades: int, p: float = 0.0, device: torch.device | None = None) -> None:
        super().__init__(features, 1, device=device)
        self.p = p
        self.gaps = nn.Parameter(torch.zeros(grades - 2, device=device))
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        values_N1 = super().forward(F.dropout(input, self.p, self.training))
        return log_probabilities(values_N1.float(), self.gaps.float())

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, grades={len(self.gaps) + 2}, p={self.p}"


def find_thresholds(gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the K - 1 thresholds, and the widths of the K - 2 gaps between them.

    The first threshold is fixed, as the bias shifts the values.
    """
    grades = gaps.shape[-1] + 2
    shares_J = torch.arange(1, grades, device=gaps.device) / grades
    equal_J = torch.log(shares_J / (1 - shares_J))
    widths = MIN_GAP + (equal_J[1:] - equal_J[:-1] - MIN_GAP) * F.softplus(GAP_SPEED * gaps + _ONE)
    return equal_J[0] + F.pad(widths.cumsum(-1), (1, 0)), widths


def log_probabilities(values_N1: Tensor, gaps: Tensor) -> Tensor:
    """Return log_probabilities_NK of ordered grades, each between two thresholds.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which does not cancel where both are near 1.
    """
    thresholds_J, widths = find_thresholds(gaps)
    # Not cat, in which torch-pruning sees channels.
    lower_K, upper_K = F.pad(thresholds_J, (1, 0), value=-_FAR), F.pad(thresholds_J, (0, 1), value=_FAR)
    logs_NK = F.logsigmoid(upper_K - values_N1) + F.logsigmoid(values_N1 - lower_K)
    return logs_NK + F.pad(torch.log(-torch.expm1(-widths)), (1, 1))


def set_ordinal_head(model: nn.Module, name: str, grades: int) -> None:
    """Replace the model's head, and auxiliary ones, by those of ordered grades. ModelError if it has no linear one."""
    for layer_name, layer in head_modules(model).items():
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"model.name {name}: ordered grades need a linear last layer: choose another model")
        p = layer.p if isinstance(layer, DropoutLinear) else 0.0
        replace_module(model, layer_name, OrdinalHead(layer.in_features, grades, p, layer.weight.device))
