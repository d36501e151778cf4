"""Colour operations on float images of 1 or 3 channels in [0, 1], with one strength per image.

The formulas are those of torchvision.transforms.functional (adjust_*, posterize, ...), applied to a whole batch.
"""

import torch
from torch import Tensor

# ITU-R BT.601: weights of red, green and blue in luma.
_LUMA = (0.2989, 0.587, 0.114)


def brightness(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Multiply by the factor: 0 gives black, 1 leaves the image unchanged."""
    return (images_NCHW * _broadcast(factor_N)).clamp_(0, 1)


def contrast(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Blend with the image's mean grey level: 0 gives that grey, 1 leaves the image unchanged."""
    return _blend(images_NCHW, _to_grey(images_NCHW).mean((1, 2, 3), keepdim=True), factor_N)


def saturation(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Blend with the greyscale image: 0 gives greyscale, 1 leaves the image unchanged. No effect on one channel."""
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    return _blend(images_NCHW, _to_grey(images_NCHW), factor_N)


def hue(images_NCHW: Tensor, turn_N: Tensor) -> Tensor:
    """Rotate the hue by turn_N; 1 is a full turn. No effect on images of one channel.

    Hue, saturation and value: A. R. Smith, "Color gamut transform pairs", SIGGRAPH 1978.
    """
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    red, green, blue = images_NCHW.unbind(1)
    value_NHW = images_NCHW.amax(1)
    chroma_NHW = value_NHW - images_NCHW.amin(1)
    safe_NHW = torch.where(chroma_NHW == 0, 1.0, chroma_NHW)
    sixths_NHW = torch.where(
        value_NHW == red,
        (green - blue) / safe_NHW,
        torch.where(value_NHW == green, 2 + (blue - red) / safe_NHW, 4 + (red - green) / safe_NHW),
    )
    sixths_NHW = sixths_NHW + 6 * turn_N[:, None, None]
    # Each channel is the same trapezoid function of the hue, shifted by 2/6 of a turn.
    channels = []
    for start in (5, 3, 1):
        k_NHW = (sixths_NHW + start) % 6
        level_NHW = torch.minimum(k_NHW, 4 - k_NHW).clamp_(0, 1)
        channels.append(value_NHW - chroma_NHW * level_NHW)
    return torch.stack(channels, 1).clamp_(0, 1)


def sharpness(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Blend with a smoothed image: 0 gives that, 1 leaves the image unchanged, 2 sharpens. Border pixels are kept."""
    height, width = images_NCHW.shape[2:]
    if min(height, width) < 3:
        return images_NCHW
    # A 3 x 3 mean with 5 times the weight on the centre, as in Pillow's SMOOTH.
    rows = images_NCHW[..., :-2, :] + images_NCHW[..., 1:-1, :] + images_NCHW[..., 2:, :]
    sum_NCHW = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth_NCHW = images_NCHW.clone()
    smooth_NCHW[..., 1:-1, 1:-1] = (sum_NCHW + 4 * images_NCHW[..., 1:-1, 1:-1]) / 13
    return _blend(images_NCHW, smooth_NCHW, factor_N)


def posterize(images_NCHW: Tensor, bits_N: Tensor) -> Tensor:
    """Keep the bits_N (int64 in [0, 8]) highest bits of each value."""
    step_N = _broadcast(2 ** (8 - bits_N))
    return (_to_byte_values(images_NCHW) // step_N * step_N).to(images_NCHW.dtype) / 255


def solarize(images_NCHW: Tensor, threshold_N: Tensor) -> Tensor:
    """Invert values at or above the threshold, in [0, 1]."""
    return torch.where(images_NCHW >= _broadcast(threshold_N), 1 - images_NCHW, images_NCHW)


def autocontrast(images_NCHW: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; constant channels are unchanged."""
    low_NC11, high_NC11 = images_NCHW.amin((2, 3), keepdim=True), images_NCHW.amax((2, 3), keepdim=True)
    flat_NC11 = high_NC11 == low_NC11
    low_NC11 = torch.where(flat_NC11, 0.0, low_NC11)
    return ((images_NCHW - low_NC11) / torch.where(flat_NC11, 1.0, high_NC11 - low_NC11)).clamp_(0, 1)


def equalize(images_NCHW: Tensor) -> Tensor:
    """Equalize the histogram of each channel; constant channels are unchanged."""
    count, channels, height, width = images_NCHW.shape
    values_RP = _to_byte_values(images_NCHW).view(count * channels, height * width)
    histogram_RV = torch.zeros(len(values_RP), 256, dtype=torch.int64, device=values_RP.device)
    histogram_RV.scatter_add_(1, values_RP, torch.ones_like(values_RP))
    # As in Pillow: (pixels below + step // 2) // step, where the step excludes the pixels of the largest value.
    largest_R = values_RP.amax(1, keepdim=True)
    step_R = (height * width - histogram_RV.gather(1, largest_R)) // 255
    below_RV = histogram_RV.cumsum(1) - histogram_RV
    table_RV = ((below_RV + step_R // 2) // step_R.clamp_min(1)).clamp_(0, 255)
    equal_RP = torch.where(step_R == 0, values_RP, table_RV.gather(1, values_RP))
    return equal_RP.view(images_NCHW.shape).to(images_NCHW.dtype) / 255


def _to_grey(images_NCHW: Tensor) -> Tensor:
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    red, green, blue = images_NCHW.unbind(1)
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])[:, None]


def _blend(images_NCHW: Tensor, other: Tensor, factor_N: Tensor) -> Tensor:
    factor = _broadcast(factor_N)
    return (images_NCHW * factor).add_(other * (1 - factor)).clamp_(0, 1)


def _broadcast(values_N: Tensor) -> Tensor:
    return values_N[:, None, None, None]


def _to_byte_values(images_NCHW: Tensor) -> Tensor:
    return (images_NCHW * 255).round().to(torch.int64).contiguous()
