"""torchvision's classifiers, adapted to the number of classes, the channels and the image size.

A network for 224 pixels halves its maps five times, which leaves 1 pixel of 32. So the small stem (for images up to
64 pixels) removes the first two or so halvings, as He et al. (2016) did for CIFAR-10, and keeps the kernels where their
shape allows. VGG loses its last poolings instead, which costs least.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models.head import replace_module, set_head_dropout

MAX_SMALL_SIZE = 64  # pixels; the small stem is automatic up to this image size
_INCEPTION_AUXILIARY_SIZE = 299  # pixels; smaller images give maps that are too small for it


def build(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """Build the model with random weights.

    GoogLeNet, and Inception from 299 pixels, return (logits, auxiliary...) in training. model.dropout replaces the
    model's own dropout before its head: 0 turns it off. ModelError if the patches of a transformer do not divide the
    image size.
    """
    from torchvision import models

    small = uses_small_stem(config, size)
    constructor = next((make for prefix, make in _CONSTRUCTORS.items() if config.name.startswith(prefix)), None)
    if constructor is not None:
        model = constructor(config.name, classes, size, small)
    else:
        model = models.get_model(config.name, weights=None, num_classes=classes)
    if small:
        for prefix, replace_stem in _SMALL_STEMS.items():
            if config.name.startswith(prefix):
                replace_stem(model, size)
                break
    if channels != 3:
        name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
        replace_module(model, name, copy_conv(conv, in_channels=channels))
    set_head_dropout(model, config.dropout)
    return model


def uses_small_stem(config: ModelConfig, size: int) -> bool:
    """Whether the model gets the small stem; auto keeps the original stem if pretrained weights will be loaded."""
    if config.stem == "auto":
        return size <= MAX_SMALL_SIZE and config.weights is None
    return config.stem == "small"


def download_imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    """Download (once) torchvision's default ImageNet weights. OSError or RuntimeError if that fails."""
    from torchvision import models

    return dict(models.get_model_weights(name)["DEFAULT"].get_state_dict(progress=False, check_hash=True))


def _googlenet(name: str, classes: int, size: int, small: bool) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=classes, init_weights=True)


def _inception(name: str, classes: int, size: int, small: bool) -> nn.Module:
    from torchvision import models

    has_auxiliary = size >= _INCEPTION_AUXILIARY_SIZE and not small
    return models.get_model(name, weights=None, num_classes=classes, init_weights=True, aux_logits=has_auxiliary)


def _mnasnet(name: str, classes: int, size: int, small: bool) -> nn.Module:
    from classifier.models.mnasnet import Mnasnet

    return Mnasnet(float(name.removeprefix("mnasnet").replace("_", ".")), num_classes=classes)


def _vit(name: str, classes: int, size: int, small: bool) -> nn.Module:
    """Vision transformer; its small stem is a smaller patch size, for a grid of about 8 x 8 patches."""
    from torchvision import models

    original = int(name.rpartition("_")[2])
    patch = min((p for p in range(1, size + 1) if size % p == 0), key=lambda p: abs(p - size / 8))
    patch = patch if small else original
    if size % patch or (small and size // patch > 28):
        fits = sorted({max(1, size // original) * original, math.ceil(size / original) * original})
        raise ModelError(
            f"model.name {name} needs an image size that is a multiple of its patch size {original}, not {size}: "
            f"set data.size to {' or '.join(map(str, fits))}"
        )
    model: Any = models.get_model(name, weights=None, num_classes=classes, image_size=size // patch * original)
    if patch != original:
        model.image_size, model.patch_size = size, patch
        model.conv_proj = copy_conv(model.conv_proj, kernel_size=(patch, patch), stride=(patch, patch))
    return model


def _maxvit(name: str, classes: int, size: int, small: bool) -> nn.Module:
    """maxvit_t with a window size that divides its maps (7 at 224 pixels). Its small stem does not downsample."""
    from torchvision.models.maxvit import MaxVit

    input_size = 2 * size if small else size
    if input_size % 32:
        step = 16 if small else 32
        fits = sorted({max(step, size // step * step), (size // step + 1) * step})
        raise ModelError(
            f"model.name {name} needs an image size that is a multiple of {step}, not {size}: "
            f"set data.size to {' or '.join(map(str, fits))}"
        )
    map_size = input_size // 32
    model = MaxVit(
        input_size=(input_size, input_size),
        stem_channels=64,
        partition_size=max(p for p in range(1, 9) if map_size % p == 0),
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=classes,
    )
    if small:
        _remove_strides(model, "stem.0.0")
    return model


def _resnet(model: Any, size: int) -> None:
    model.conv1 = copy_conv(model.conv1, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    model.maxpool = nn.Identity()


def _densenet(model: Any, size: int) -> None:
    model.features.conv0 = copy_conv(model.features.conv0, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    model.features.pool0 = nn.Identity()


def _replace_patch_stem(model: Any, size: int) -> None:
    """ConvNeXt, Swin: an overlapping 3 x 3 convolution instead of patches of 4 x 4."""
    model.features[0][0] = copy_conv(model.features[0][0], kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))


def _small_googlenet(model: Any, size: int) -> None:
    _remove_strides(model, "conv1.conv")
    model.maxpool1 = nn.Identity()


def _small_inception(model: Any, size: int) -> None:
    _remove_strides(model, "Conv2d_1a_3x3.conv")
    for conv in (model.Conv2d_1a_3x3.conv, model.Conv2d_2a_3x3.conv, model.Conv2d_4a_3x3.conv):
        conv.padding = (1, 1)
    model.maxpool1 = nn.Identity()
    model.maxpool2.padding = 1


def _shufflenet(model: Any, size: int) -> None:
    _remove_strides(model, "conv1.0")
    model.maxpool = nn.Identity()


def _squeezenet(model: Any, size: int) -> None:
    model.features[0] = copy_conv(model.features[0], kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))


def _alexnet(model: Any, size: int) -> None:
    model.features[0] = copy_conv(model.features[0], kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.padding = 1
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier[1] = nn.Linear(256 * 2 * 2, 4096)


def _vgg(model: Any, size: int) -> None:
    pools = [i for i, module in enumerate(model.features) if isinstance(module, nn.MaxPool2d)]
    for i in pools[max(1, int(math.log2(size)) - 1) :]:  # leaves maps of 2 to 3 pixels
        model.features[i] = nn.Identity()
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier[0] = nn.Linear(512, 4096)
    nn.init.normal_(model.classifier[0].weight, 0, 0.01)
    nn.init.zeros_(model.classifier[0].bias)


def _remove_first_strides(model: nn.Module, size: int) -> None:
    """MobileNet, MNASNet, EfficientNet: the first two strided convolutions."""
    strided = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    _remove_strides(model, *strided[:2])


def _regnet(model: nn.Module, size: int) -> None:
    """The stem and the first stage, where the shortcut has a stride too."""
    strided = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    _remove_strides(model, *(name for name in strided if name.startswith(("stem.", "trunk_output.block1."))))


_CONSTRUCTORS: dict[str, Callable[[str, int, int, bool], nn.Module]] = {
    "googlenet": _googlenet,
    "inception": _inception,
    "vit": _vit,
    "maxvit": _maxvit,
    "mnasnet": _mnasnet,
}
_SMALL_STEMS: dict[str, Callable[[Any, int], None]] = {
    "alexnet": _alexnet,
    "convnext": _replace_patch_stem,
    "densenet": _densenet,
    "efficientnet": _remove_first_strides,
    "googlenet": _small_googlenet,
    "inception": _small_inception,
    "mnasnet": _remove_first_strides,
    "mobilenet": _remove_first_strides,
    "regnet": _regnet,
    "resnet": _resnet,
    "resnext": _resnet,
    "shufflenet": _shufflenet,
    "squeezenet": _squeezenet,
    "swin": _replace_patch_stem,
    "vgg": _vgg,
    "wide_resnet": _resnet,
}


def _remove_strides(model: nn.Module, *names: str) -> None:
    """Set the stride of convolutions to 1; their weights still fit."""
    for name in names:
        conv: Any = model.get_submodule(name)
        conv.stride = (1, 1)


def copy_conv(conv: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """Make a convolution with some arguments changed, its random weights scaled to keep the output variance."""
    arguments = {
        name: getattr(conv, name) for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    }
    weight = conv.weight
    new = nn.Conv2d(**arguments | changes, bias=conv.bias is not None, device=weight.device)
    gain = math.sqrt(weight[0].numel() / new.weight[0].numel())
    with torch.no_grad():
        new.weight.copy_(torch.randn_like(new.weight) * weight.std() * gain)
        if new.bias is not None:
            new.bias.zero_()
    return new
