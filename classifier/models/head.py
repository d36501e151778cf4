"""The head: the last layer, which gives one logit per class. Everything else is the backbone."""

import torch
import torch.nn.functional as F
from torch import nn

# Last layers of torchvision's auxiliary classifiers (GoogLeNet, Inception).
_AUXILIARY = ("AuxLogits.fc", "aux1.fc2", "aux2.fc2")


class DropoutLinear(nn.Linear):
    """A linear layer with dropout on its inputs; parameter names are those of nn.Linear."""

    def __init__(self, layer: nn.Linear, p: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.device)
        self.p = p
        self.load_state_dict(layer.state_dict())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(input, self.p, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the head's layers by name: timm's classifier, else the last linear or convolution; then auxiliary heads.

    "Last" in order of registration, which is the order of execution in all torchvision models.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None  # pyright: ignore[reportCallIssue]
    classifiers = classifier if isinstance(classifier, tuple) else (classifier,)
    head_ids = {id(m) for m in classifiers if isinstance(m, nn.Module)}
    heads = [name for name, m in layers.items() if id(m) in head_ids] or list(layers)[-1:]
    return {name: layers[name] for name in (*heads, *_AUXILIARY) if name in layers}


def head_parameter_names(model: nn.Module) -> frozenset[str]:
    """Return the names of the head's parameters: where columns join the image, of all that comes after the backbone."""
    if hasattr(model, "head_parameter_names"):  # a FusionNet
        return model.head_parameter_names()  # pyright: ignore[reportCallIssue]
    return frozenset(f"{name}.{part}" for name, m in head_modules(model).items() for part, _ in m.named_parameters())


def set_head_dropout(model: nn.Module, p: float) -> None:
    """Set the dropout before the head to p: in the model's own dropout layers there, else in the head itself.

    p = 0 turns the model's own dropout off. Auxiliary heads keep theirs.
    """
    own_dropouts = [
        m
        for name, m in model.named_modules()
        if isinstance(m, nn.Dropout) and (name.startswith("classifier.") or name == "dropout")
    ]
    for dropout in own_dropouts:
        dropout.p = p
    if own_dropouts or not p:
        return
    for name, layer in head_modules(model).items():
        if isinstance(layer, nn.Linear) and name not in _AUXILIARY:
            replace_module(model, name, DropoutLinear(layer, p))


def replace_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer of this dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
