"""The head: the last layer, whose outputs are the classes. All else of a model is its backbone."""

import torch
import torch.nn.functional as F
from torch import nn

# Where torchvision's auxiliary classifiers (GoogLeNet, Inception) end.
_AUXILIARY = ("AuxLogits.fc", "aux1.fc2", "aux2.fc2")


class DroppingLinear(nn.Linear):
    """A linear layer that drops a share of its inputs while it trains; its parameters are named as nn.Linear's."""

    def __init__(self, layer: nn.Linear, share: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.device)
        self.share = share
        self.load_state_dict(layer.state_dict())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(input, self.share, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, share={self.share}"


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The head's layers by name: what timm calls the classifier, else the last linear or convolution; auxiliary ones.

    "Last" goes by registration, which is the order of computation in every model of torchvision.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    said = model.get_classifier() if hasattr(model, "get_classifier") else None  # pyright: ignore[reportCallIssue]
    named = {id(m) for m in (said if isinstance(said, tuple) else (said,)) if isinstance(m, nn.Module)}
    heads = [name for name, m in layers.items() if id(m) in named] or list(layers)[-1:]
    return {name: layers[name] for name in (*heads, *_AUXILIARY) if name in layers}


def head_names(model: nn.Module) -> frozenset[str]:
    """The names of the head's parameters."""
    return frozenset(f"{name}.{part}" for name, m in head_modules(model).items() for part, _ in m.named_parameters())


def drop_before_head(model: nn.Module, share: float) -> None:
    """Drop that share of the features before the head: by the model's own dropouts there, else by the head itself.

    The share holds exactly: 0 turns off a dropout that the model brings. Auxiliary heads keep theirs.
    """
    own = [
        m
        for name, m in model.named_modules()
        if isinstance(m, nn.Dropout) and (name.startswith("classifier.") or name == "dropout")
    ]
    for dropout in own:
        dropout.p = share
    if own or not share:
        return
    for name, layer in head_modules(model).items():
        if isinstance(layer, nn.Linear) and name not in _AUXILIARY:
            replace(model, name, DroppingLinear(layer, share))


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another, by its dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
