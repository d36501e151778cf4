"""Stochastic depth: residual blocks that training skips at random (G. Huang et al., 2016)."""

from torch import nn

from classifier.errors import ModelError

# The modules that skip a block, torchvision's and timm's, and their attribute with the rate.
_RATES = {"StochasticDepth": "p", "DropPath": "drop_prob"}


def set_stochastic_depth(model: nn.Module, rate: float, name: str) -> None:
    """Scale the rates of the blocks, which grow with depth, so that the highest is `rate`.

    ModelError if the model, called `name`, has no stochastic depth, unless `rate` is 0.
    """
    layers = [(module, _RATES[type(module).__name__]) for module in model.modules() if type(module).__name__ in _RATES]
    highest = max((getattr(module, attribute) for module, attribute in layers), default=0.0)
    if not highest and rate:
        raise ModelError(
            f"model.drop_path {rate:g}: {name} has no stochastic depth: leave it out, or choose a model that has it, "
            "such as timm/resnet50 or convnext_tiny"
        )
    for module, attribute in layers:
        setattr(module, attribute, rate * (getattr(module, attribute) / highest) if highest else 0.0)
