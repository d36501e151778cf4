"""What pretrained weights expect of their images: the mean and deviation that they were trained with."""

from classifier.config import ModelConfig

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def statistics(config: ModelConfig, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) a channel, in [0, 1], or None for a model from scratch, which takes those of its own data.

    timm says it of each of its models (some, as EfficientNet-Lite, have 0.5); all others are taken for ImageNet's.
    """
    if config.weights is None:
        return None
    mean, std = IMAGENET
    if config.name.startswith("timm/"):
        import timm

        said = timm.get_pretrained_cfg(config.name.removeprefix("timm/"), allow_unregistered=True)
        mean, std = (said.mean, said.std) if said is not None else IMAGENET
    if channels == 1:
        return (sum(mean) / 3,), (sum(std) / 3,)
    return tuple(mean), tuple(std)
