"""The weights of a model for more classes: those of the classes that it knows stay, new ones start at zero."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from classifier.models.head import head_parameter_names


def grow_head(
    weights: Mapping[str, Tensor], old_names: Sequence[str], model: nn.Module, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return weights for `model`, whose outputs are of the classes `names`, from those of a model of `old_names`.

    Each of the old classes keeps its row of the head; the rows of the new ones are zero, so that at first their logits
    are, too. All old classes must be among the new.
    """
    positions = torch.tensor([list(names).index(name) for name in old_names])
    heads, grown = head_parameter_names(model), dict(weights)
    for name, own in model.state_dict().items():
        if name in heads and len(old_names) == len(weights[name]) and len(own) == len(names):
            grown[name] = torch.zeros_like(own).index_copy_(0, positions, weights[name].to(own))
    return grown
