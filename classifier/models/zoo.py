"""torchvision's classifiers, adapted to the number of classes, the channels and the size of the images.

A net made for 224 pixels halves an image five times; of 32 pixels it would see one. So the small stem (for images
up to 64 pixels) takes out the first two or so halvings, as He et al. (2016) did for CIFAR-10: the kernels stay as
they are where their shape allows. VGG gives up its last poolings instead, which costs least.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models.head import drop_before_head, replace

SMALL_SIZE = 64  # pixels; up to here the small stem is automatic
_INCEPTION_AUXILIARY_SIZE = 299  # pixels; the auxiliary head takes no smaller map than this gives it


def build(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """The model with random weights. GoogLeNet, and Inception from 299 pixels, give (logits, auxiliary...) in training.

    model.dropout is exact where the model has a dropout before its head: 0 turns it off. ModelError on a size that
    does not go with the patches of a transformer.
    """
    from torchvision import models

    small = is_small(config, size)
    family = next((make for prefix, make in _CONSTRUCTORS.items() if config.name.startswith(prefix)), None)
    if family is not None:
        model = family(config.name, classes, size, small)
    else:
        model = models.get_model(config.name, weights=None, num_classes=classes)
    if small:
        for prefix, change in _SMALL_STEMS.items():
            if config.name.startswith(prefix):
                change(model, size)
                break
    if channels != 3:
        name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
        replace(model, name, _like(conv, in_channels=channels))
    drop_before_head(model, config.dropout)
    return model


def is_small(config: ModelConfig, size: int) -> bool:
    """Whether the model gets a small stem. auto keeps the original where weights for it are to be loaded."""
    if config.stem == "auto":
        return size <= SMALL_SIZE and config.weights is None
    return config.stem == "small"


def imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    """torchvision's default ImageNet weights, downloaded once. OSError or RuntimeError when that fails."""
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
    """The small stem of a vision transformer is a smaller patch: about 8 x 8 of them."""
    from torchvision import models

    original = int(name.rpartition("_")[2])
    patch = min((p for p in range(1, size + 1) if size % p == 0), key=lambda p: abs(p - size / 8))
    patch = patch if small else original
    if size % patch or (small and size // patch > 28):
        fits = sorted({max(1, size // original) * original, math.ceil(size / original) * original})
        raise ModelError(
            f"model.name {name} cuts images into whole patches of {original} pixels, which {size} pixels are not: "
            f"set data.size to {' or '.join(map(str, fits))}"
        )
    model: Any = models.get_model(name, weights=None, num_classes=classes, image_size=size // patch * original)
    if patch != original:
        model.image_size, model.patch_size = size, patch
        model.conv_proj = _like(model.conv_proj, kernel_size=(patch, patch), stride=(patch, patch))
    return model


def _maxvit(name: str, classes: int, size: int, small: bool) -> nn.Module:
    """maxvit_t with windows that divide its maps; the original's 7 at 224 pixels. Small: the stem keeps the size."""
    from torchvision.models.maxvit import MaxVit

    input_size = 2 * size if small else size
    if input_size % 32:
        step = 16 if small else 32
        fits = sorted({max(step, size // step * step), (size // step + 1) * step})
        raise ModelError(
            f"model.name {name} takes sizes that {step} divides, not {size}: "
            f"set data.size to {' or '.join(map(str, fits))}"
        )
    side = input_size // 32
    model = MaxVit(
        input_size=(input_size, input_size),
        stem_channels=64,
        partition_size=max(p for p in range(1, 9) if side % p == 0),
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=classes,
    )
    if small:
        _unstride(model, "stem.0.0")
    return model


def _resnet(model: Any, size: int) -> None:
    model.conv1 = _like(model.conv1, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    model.maxpool = nn.Identity()


def _densenet(model: Any, size: int) -> None:
    model.features.conv0 = _like(model.features.conv0, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    model.features.pool0 = nn.Identity()


def _patches_of_four(model: Any, size: int) -> None:
    """ConvNeXt, Swin: overlapping 3 x 3 places instead of patches of 4 x 4."""
    model.features[0][0] = _like(model.features[0][0], kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))


def _small_googlenet(model: Any, size: int) -> None:
    _unstride(model, "conv1.conv")
    model.maxpool1 = nn.Identity()


def _small_inception(model: Any, size: int) -> None:
    _unstride(model, "Conv2d_1a_3x3.conv")
    for conv in (model.Conv2d_1a_3x3.conv, model.Conv2d_2a_3x3.conv, model.Conv2d_4a_3x3.conv):
        conv.padding = (1, 1)
    model.maxpool1 = nn.Identity()
    model.maxpool2.padding = 1


def _shufflenet(model: Any, size: int) -> None:
    _unstride(model, "conv1.0")
    model.maxpool = nn.Identity()


def _squeezenet(model: Any, size: int) -> None:
    model.features[0] = _like(model.features[0], kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))


def _alexnet(model: Any, size: int) -> None:
    model.features[0] = _like(model.features[0], kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.padding = 1
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier[1] = nn.Linear(256 * 2 * 2, 4096)


def _vgg(model: Any, size: int) -> None:
    pools = [i for i, module in enumerate(model.features) if isinstance(module, nn.MaxPool2d)]
    for i in pools[max(1, int(math.log2(size)) - 1) :]:  # a map of 2 to 3 pixels is left
        model.features[i] = nn.Identity()
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier[0] = nn.Linear(512, 4096)
    nn.init.normal_(model.classifier[0].weight, 0, 0.01)
    nn.init.zeros_(model.classifier[0].bias)


def _first_strides(model: nn.Module, size: int) -> None:
    """MobileNet, MNASNet, EfficientNet: the first two convolutions that halve."""
    strided = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    _unstride(model, *strided[:2])


def _regnet(model: nn.Module, size: int) -> None:
    """The stem, and the first stage: its shortcut halves beside its convolution."""
    first = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    _unstride(model, *(name for name in first if name.startswith(("stem.", "trunk_output.block1."))))


_CONSTRUCTORS: dict[str, Callable[[str, int, int, bool], nn.Module]] = {
    "googlenet": _googlenet,
    "inception": _inception,
    "vit": _vit,
    "maxvit": _maxvit,
    "mnasnet": _mnasnet,
}
_SMALL_STEMS: dict[str, Callable[[Any, int], None]] = {
    "alexnet": _alexnet,
    "convnext": _patches_of_four,
    "densenet": _densenet,
    "efficientnet": _first_strides,
    "googlenet": _small_googlenet,
    "inception": _small_inception,
    "mnasnet": _first_strides,
    "mobilenet": _first_strides,
    "regnet": _regnet,
    "resnet": _resnet,
    "resnext": _resnet,
    "shufflenet": _shufflenet,
    "squeezenet": _squeezenet,
    "swin": _patches_of_four,
    "vgg": _vgg,
    "wide_resnet": _resnet,
}


def _unstride(model: nn.Module, *names: str) -> None:
    """Let convolutions keep the size of their maps; their weights fit as before."""
    for name in names:
        conv: Any = model.get_submodule(name)
        conv.stride = (1, 1)


def _like(conv: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """A new convolution with some arguments changed. Its random weights keep the variance of what comes out."""
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
