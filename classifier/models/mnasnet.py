"""torchvision's MNASNet, which cannot load its own weights unless they were pickled with their version."""

from typing import Any

from torch import nn
from torchvision.models import MNASNet


class Mnasnet(MNASNet):
    """MNASNet that loads any state dict of today's layout, such as one from a .safetensors file."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        nn.Module._load_from_state_dict(self, *args, **kwargs)
