"""Random erasing, MixUp and CutMix."""

import torch
import torch.nn.functional as F
from torch import Tensor


def erase(images_NCHW: Tensor, on_N: Tensor, area_N: Tensor, aspect_N: Tensor, u_x_N: Tensor, u_y_N: Tensor) -> Tensor:
    """Fill a rectangle with the image's mean of each channel, where on_N (bool) is true. uint8 or float images.

    area_N: its fraction of the area. aspect_N: its height / width in pixels. u_x_N, u_y_N: in [0, 1), its position in
    the remaining space. Z. Zhong et al., "Random erasing data augmentation", 2017: there the mean does about as well
    as noise and better than black, and it needs no random number per pixel.
    """
    height, width = images_NCHW.shape[2:]
    root_area_N = (area_N * (height * width)).sqrt()
    rows_N = (root_area_N * aspect_N.sqrt()).round().clamp(1, height)
    columns_N = (root_area_N / aspect_N.sqrt()).round().clamp(1, width)
    top_N = (u_y_N * (height - rows_N + 1)).floor()
    left_N = (u_x_N * (width - columns_N + 1)).floor()
    rows_N = torch.where(on_N, rows_N, 0)
    mean_NC11 = images_NCHW.mean((2, 3), keepdim=True, dtype=torch.float32)
    if not images_NCHW.is_floating_point():
        mean_NC11 = mean_NC11.round()
    box_N1HW = box_mask(height, width, top_N, left_N, rows_N, columns_N)
    return torch.where(box_N1HW, mean_NC11.to(images_NCHW.dtype), images_NCHW)


def mixup_or_cutmix(
    images_NCHW: Tensor, targets_NK: Tensor, share_N: Tensor, paste_N: Tensor, u_x_N: Tensor, u_y_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Mix each image and its targets with the previous one in the batch (the first with the last).

    share_N: the image's own weight, in [0, 1]. paste_N: bool. False, MixUp, blends: H. Zhang et al., "mixup: beyond
    empirical risk minimization", 2017. True, CutMix, pastes a box of the other image, centred on (u_x_N, u_y_N) in [0,
    1): S. Yun et al., "CutMix", 2019; the targets follow the pasted area, since the box is clipped at the edges.
    Batches are shuffled, so the previous image is as random as any partner.
    """
    height, width = images_NCHW.shape[2:]
    others_NCHW, other_targets_NK = images_NCHW.roll(1, 0), targets_NK.roll(1, 0)
    box_size_N = (1 - share_N).sqrt()
    rows_N, columns_N = (box_size_N * height).round(), (box_size_N * width).round()
    top_N = (u_y_N * height).floor() - (rows_N / 2).floor()
    left_N = (u_x_N * width).floor() - (columns_N / 2).floor()
    box_N1HW = box_mask(height, width, top_N, left_N, rows_N, columns_N)
    own_share_N = 1 - box_N1HW.to(share_N.dtype).mean((1, 2, 3))
    # One weight per pixel serves both: a constant for MixUp, 1 inside the box for CutMix.
    weight_N1HW = torch.where(
        paste_N[:, None, None, None], box_N1HW.to(share_N.dtype), (1 - share_N)[:, None, None, None]
    )
    weight_N1 = 1 - torch.where(paste_N, own_share_N, share_N)[:, None]
    images_NCHW = images_NCHW * (1 - weight_N1HW) + others_NCHW * weight_N1HW
    return images_NCHW, targets_NK * (1 - weight_N1) + other_targets_NK * weight_N1


def one_hot(labels_N: Tensor, classes: int) -> Tensor:
    """Return targets_NK, float32."""
    return F.one_hot(labels_N, classes).to(torch.float32)


def box_mask(height: int, width: int, top_N: Tensor, left_N: Tensor, rows_N: Tensor, columns_N: Tensor) -> Tensor:
    """Return mask_N1HW, true inside one rectangle per image, in pixels; it may extend beyond the edges."""
    y_H = torch.arange(height, device=top_N.device)
    x_W = torch.arange(width, device=top_N.device)
    rows_NH = (y_H >= top_N[:, None]) & (y_H < (top_N + rows_N)[:, None])
    columns_NW = (x_W >= left_N[:, None]) & (x_W < (left_N + columns_N)[:, None])
    return (rows_NH[:, :, None] & columns_NW[:, None, :])[:, None]
