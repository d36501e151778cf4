"""Changes of the pixels' values: float images of 1 or 3 channels in [0, 1] go in and come out, each by its own amount.

The formulas are those of torchvision.transforms.functional (adjust_*, posterize, ...), for a batch at once.
"""

import torch
from torch import Tensor

# ITU-R BT.601: what the eye makes of red, green and blue.
_LUMA = (0.2989, 0.587, 0.114)


def brightness(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Times the factor: 0 is black, 1 unchanged."""
    return (images_NCHW * _wide(factor_N)).clamp_(0, 1)


def contrast(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Away from the image's mean grey: 0 is that grey, 1 unchanged."""
    return _blend(images_NCHW, _grey(images_NCHW).mean((1, 2, 3), keepdim=True), factor_N)


def saturation(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Away from grey: 0 is a grey image, 1 unchanged. Grey images stay as they are."""
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    return _blend(images_NCHW, _grey(images_NCHW), factor_N)


def hue(images_NCHW: Tensor, turn_N: Tensor) -> Tensor:
    """Turn each colour about the circle of hues, by a share of it; 1 is a whole turn. Grey images stay as they are.

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
    # Each channel is the same trapezium of the hue, 2/6 of a turn apart.
    channels = []
    for start in (5, 3, 1):
        k_NHW = (sixths_NHW + start) % 6
        level_NHW = torch.minimum(k_NHW, 4 - k_NHW).clamp_(0, 1)
        channels.append(value_NHW - chroma_NHW * level_NHW)
    return torch.stack(channels, 1).clamp_(0, 1)


def sharpness(images_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Away from a smoothed image: 0 is smooth, 1 unchanged, 2 sharper. The outermost pixels stay as they are."""
    height, width = images_NCHW.shape[2:]
    if min(height, width) < 3:
        return images_NCHW
    # The 3 x 3 mean in which the centre counts 5 times, as in Pillow's SMOOTH.
    rows = images_NCHW[..., :-2, :] + images_NCHW[..., 1:-1, :] + images_NCHW[..., 2:, :]
    sum_NCHW = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth_NCHW = images_NCHW.clone()
    smooth_NCHW[..., 1:-1, 1:-1] = (sum_NCHW + 4 * images_NCHW[..., 1:-1, 1:-1]) / 13
    return _blend(images_NCHW, smooth_NCHW, factor_N)


def posterize(images_NCHW: Tensor, bits_N: Tensor) -> Tensor:
    """Keep so many of the 8 bits of each value. bits_N: int64 in [0, 8]."""
    step_N = _wide(2 ** (8 - bits_N))
    return (_bytes(images_NCHW) // step_N * step_N).to(images_NCHW.dtype) / 255


def solarize(images_NCHW: Tensor, threshold_N: Tensor) -> Tensor:
    """Invert the values at or above the threshold, which is in [0, 1]."""
    return torch.where(images_NCHW >= _wide(threshold_N), 1 - images_NCHW, images_NCHW)


def autocontrast(images_NCHW: Tensor) -> Tensor:
    """Stretch each channel from 0 to 1; a channel of one value stays as it is."""
    low_NC11, high_NC11 = images_NCHW.amin((2, 3), keepdim=True), images_NCHW.amax((2, 3), keepdim=True)
    flat_NC11 = high_NC11 == low_NC11
    low_NC11 = torch.where(flat_NC11, 0.0, low_NC11)
    return ((images_NCHW - low_NC11) / torch.where(flat_NC11, 1.0, high_NC11 - low_NC11)).clamp_(0, 1)


def equalize(images_NCHW: Tensor) -> Tensor:
    """Spread each channel's 256 values so that all are about as frequent; a channel of one value stays as it is."""
    count, channels, height, width = images_NCHW.shape
    values_RP = _bytes(images_NCHW).view(count * channels, height * width)
    histogram_RV = torch.zeros(len(values_RP), 256, dtype=torch.int64, device=values_RP.device)
    histogram_RV.scatter_add_(1, values_RP, torch.ones_like(values_RP))
    # Pillow's rule: pixels below, plus half a step, over the step; a step leaves the largest value's pixels out.
    largest_R = values_RP.amax(1, keepdim=True)
    step_R = (height * width - histogram_RV.gather(1, largest_R)) // 255
    below_RV = histogram_RV.cumsum(1) - histogram_RV
    table_RV = ((below_RV + step_R // 2) // step_R.clamp_min(1)).clamp_(0, 255)
    equal_RP = torch.where(step_R == 0, values_RP, table_RV.gather(1, values_RP))
    return equal_RP.view(images_NCHW.shape).to(images_NCHW.dtype) / 255


def _grey(images_NCHW: Tensor) -> Tensor:
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    red, green, blue = images_NCHW.unbind(1)
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])[:, None]


def _blend(images_NCHW: Tensor, other: Tensor, factor_N: Tensor) -> Tensor:
    factor = _wide(factor_N)
    return (images_NCHW * factor).add_(other * (1 - factor)).clamp_(0, 1)


def _wide(values_N: Tensor) -> Tensor:
    return values_N[:, None, None, None]


def _bytes(images_NCHW: Tensor) -> Tensor:
    return (images_NCHW * 255).round().to(torch.int64).contiguous()
