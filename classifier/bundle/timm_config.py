"""config.json beside the weights of one of timm's networks, as timm writes it for the Hugging Face hub.

timm.create_model("local-dir:BUNDLE", pretrained=True), or hf-hub:OWNER/NAME once it is uploaded, builds the network
with these weights; temperature, mirrored views and whatever else is in bundle.json are this package's alone.
"""

from pathlib import Path
from typing import Any

from torch import nn

from classifier.bundle.document import Bundle

NAME = "config.json"
_CROP_MODES = {"crop": "center", "pad": "border", "stretch": "squash"}


def write_timm_config(bundle: Bundle, model: nn.Module, folder: Path) -> None:
    """Write config.json into a folder that has the model's weights, if it is a network of timm's as timm builds it."""
    if not hasattr(model, "pretrained_cfg") or bundle.model.get("widths") or bundle.task == "ordinal":  # its own head
        return
    from timm.models._hub import (
        save_config_for_hf,  # of what timm exports, save_for_hf alone calls it, after the weights
    )

    labels: dict[str, Any] = {"label_names": list(bundle.class_names), "num_classes": len(bundle.class_names)}
    preparation = {
        "input_size": (bundle.channels, bundle.size, bundle.size),
        "mean": bundle.mean,
        "std": bundle.std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[bundle.fit],
    }
    save_config_for_hf(model, str(folder / NAME), model_config=labels, data_config=preparation)
