"""The pretrained backbones that the recipe `auto` compares, the simplest first.

All under the Apache license; none needs an account. Which backbone is best depends on the images (VIBES: Guerin et al.,
"Vision Backbone Efficient Selection for Image Classification in Low-Data Regimes", 2025), so that a few of different
kinds are worth more than the best of any ranking:

- EfficientNet-Lite0, whose weights are installed: Tan and Le, "EfficientNet", 2019; Google's release of 2020.
- ConvNeXt, trained with labels on ImageNet-12k: of small backbones ConvNeXt-Tiny transfers best in Goldblum et al.,
  "Battle of the Backbones", 2023, and is first in Jeevan and Sethi, "Which Backbone to Use", 2024. Nano is half of it.
- DINOv2, trained without labels: Oquab et al., 2023. A linear head has 81.1 % on ImageNet on ViT-S/14, and 84.6 % on
  ViT-B/14 with registers (Darcet et al., "Vision Transformers Need Registers", 2024), as its authors publish.
- SigLIP 2, trained on images with texts: Tschannen et al., 2025.

Left out for their licenses: DINOv3, ConvNeXt V2, MobileCLIP; as they were no better here (LOG.md): EfficientNet-Lite1
and 2.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backbone:
    """A model of timm with published weights."""

    name: str
    multiple: int = 32
    """Of which the sides of its input are multiples, in pixels."""


INSTALLED = Backbone("timm/tf_efficientnet_lite0")
"""Its weights are installed with this package."""

BETTER = (
    Backbone("timm/convnext_nano.in12k_ft_in1k"),
    Backbone("timm/vit_small_patch14_dinov2.lvd142m", multiple=14),
    Backbone("timm/vit_base_patch16_siglip_224.v2_webli"),
    Backbone("timm/vit_base_patch14_reg4_dinov2.lvd142m", multiple=14),
)
"""Slower ones, in the order of their time per image."""
