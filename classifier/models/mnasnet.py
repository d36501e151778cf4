"""torchvision's MNASNet, fixed to load weights whose state dict has no version metadata."""

from typing import Any

from torch import nn
from torchvision.models import MNASNet


class Mnasnet(MNASNet):
    """MNASNet that loads any state dict of the current layout, such as one from a .safetensors file."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        nn.Module._load_from_state_dict(self, *args, **kwargs)
