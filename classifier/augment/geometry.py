"""Moves: mirror, shift, rotate, scale, shear and crop, each image by its own amounts.

All moves of a batch are one 2 x 3 matrix an image and one sampling. Where it is a mirror and whole pixels alone, the
pixels are copied instead: exact, on uint8, and about 10 times faster. What comes in from outside repeats the border or
mirrors the image there, never black: a dark frame would tell the model how an image was moved.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Images up to so many pixels a side are sampled with more care.
_TINY = 16
# Values of the images that are sampled at a time on a CPU.
_AT_ONCE = 1 << 20


def to_float(images_NCHW: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; float ones as they are."""
    if images_NCHW.is_floating_point():
        return images_NCHW
    return images_NCHW.to(torch.float32).div_(255)


def copy_moved(
    images_NCHW: Tensor, flip_N: Tensor | None, right_N: Tensor | None, down_N: Tensor | None, *, reflect: bool
) -> Tensor:
    """Mirror, then move by whole pixels: copies of pixels, in any dtype ("crop with padding").

    flip_N: bool. right_N, down_N: int64, at most the side minus 1 either way. None: not at all.
    """
    _, channels, height, width = images_NCHW.shape
    if right_N is None or down_N is None:
        if flip_N is None:
            return images_NCHW
        return torch.where(flip_N[:, None, None, None], images_NCHW.flip(-1), images_NCHW)
    device = images_NCHW.device
    rows_NH = _inside(torch.arange(height, device=device) - down_N[:, None], height, reflect)
    columns_NW = _inside(torch.arange(width, device=device) - right_N[:, None], width, reflect)
    if flip_N is not None:
        columns_NW = torch.where(flip_N[:, None], width - 1 - columns_NW, columns_NW)
    places_NP = (rows_NH[:, :, None] * width + columns_NW[:, None, :]).flatten(1)
    places_NCP = places_NP[:, None].expand(-1, channels, -1)
    return images_NCHW.flatten(2).gather(2, places_NCP).view(images_NCHW.shape)


def _inside(places: Tensor, side: int, reflect: bool) -> Tensor:
    """Bring places outside of [0, side) in, by the border or by reflection (in which the border is twice)."""
    if not reflect:
        return places.clamp_(0, side - 1)
    places = torch.where(places < 0, -1 - places, places)
    return torch.where(places >= side, 2 * side - 1 - places, places)


def affine(
    height: int,
    width: int,
    *,
    degrees_N: Tensor,
    scale_N: Tensor,
    shear_x_N: Tensor,
    shear_y_N: Tensor,
    right_N: Tensor,
    down_N: Tensor,
) -> Tensor:
    """matrix_N23 for `warp`, to shear, scale, rotate about the centre and then move the image.

    degrees_N: clockwise. scale_N: above 1 enlarges. shear_x_N, shear_y_N: in degrees. right_N, down_N: as shares of the
    side. The convention, and the inverse, are those of torchvision.transforms.functional.affine.
    """
    angle_N, x_N, y_N = (torch.deg2rad(t) for t in (degrees_N, shear_x_N, shear_y_N))
    a_N = torch.cos(angle_N - y_N) / torch.cos(y_N)
    c_N = torch.sin(angle_N - y_N) / torch.cos(y_N)
    b_N = -a_N * torch.tan(x_N) - torch.sin(angle_N)
    d_N = -c_N * torch.tan(x_N) + torch.cos(angle_N)
    # The inverse, since sampling asks of each pixel of the outcome where it comes from; the determinant is scale^2.
    inverse_N22 = torch.stack([d_N, -b_N * (height / width), -c_N * (width / height), a_N], 1).view(-1, 2, 2)
    inverse_N22 = inverse_N22 / scale_N[:, None, None]
    moved_N2 = torch.stack([right_N, down_N], 1) * -2  # sampling counts from -1 to 1
    offset_N2 = inverse_N22[:, :, 0] * moved_N2[:, :1] + inverse_N22[:, :, 1] * moved_N2[:, 1:]
    return torch.cat([inverse_N22, offset_N2[:, :, None]], 2)


def mirrored(matrix_N23: Tensor, flip_N: Tensor) -> Tensor:
    """matrix_N23 of the same move of the mirrored image, where flip_N (bool) is true."""
    sign_N = torch.where(flip_N, -1.0, 1.0)
    return torch.stack([matrix_N23[:, 0] * sign_N[:, None], matrix_N23[:, 1]], 1)


def cropped(
    matrix_N23: Tensor, area_N: Tensor, aspect_N: Tensor, u_x_N: Tensor, u_y_N: Tensor, *, square: float = 1.0
) -> Tensor:
    """matrix_N23 of the same move, of which only a window is kept and stretched to the whole (random-resized crop).

    area_N: share of the area that is kept. aspect_N: the window's width / height in pixels, before it is cut at the
    image's sides. u_x_N, u_y_N: in [0, 1], where in the room left the window lies. square: the image's height / width.
    After C. Szegedy et al., "Going deeper with convolutions", 2015; there, windows that do not fit are drawn anew.
    """
    width_N = (area_N * aspect_N * square).sqrt().clamp_max(1)
    height_N = (area_N / aspect_N / square).sqrt().clamp_max(1)
    x_N, y_N = (2 * u_x_N - 1) * (1 - width_N), (2 * u_y_N - 1) * (1 - height_N)
    first_N2, second_N2, offset_N2 = matrix_N23.unbind(2)
    offset_N2 = offset_N2 + first_N2 * x_N[:, None] + second_N2 * y_N[:, None]
    return torch.stack([first_N2 * width_N[:, None], second_N2 * height_N[:, None], offset_N2], 2)


def resized_crops(
    images_NCHW: Tensor, area_N: Tensor, aspect_N: Tensor, u_x_N: Tensor, u_y_N: Tensor, flip_N: Tensor | None
) -> Tensor:
    """The windows of `cropped`, at whole pixels, stretched to the whole and mirrored where flip_N (bool) is true: uint8
    of uint8, on a CPU, where it takes a quarter of the time that `warp` takes. Bilinear; an image a call, so that a
    window is all that is read. In channels_last, as torch resizes them; images that come so are read faster.
    """
    height, width = images_NCHW.shape[2:]
    wide_N = (area_N * aspect_N * (height * width)).sqrt().round().clamp(1, width)
    high_N = (area_N / aspect_N * (height * width)).sqrt().round().clamp(1, height)
    left_N, top_N = (u_x_N * (width - wide_N + 1)).floor(), (u_y_N * (height - high_N + 1)).floor()
    windows = torch.stack([top_N, top_N + high_N, left_N, left_N + wide_N], 1).long().tolist()
    flips = [False] * len(windows) if flip_N is None else flip_N.tolist()
    source_NHWC = images_NCHW.permute(0, 2, 3, 1).numpy()
    crops_NHWC = torch.empty(source_NHWC.shape, dtype=torch.uint8)
    target_NHWC = crops_NHWC.numpy()
    # One after the other, copied by numpy: a tenth of a millisecond each, too short for threads, torch's own too.
    for n, (top, bottom, left, right) in enumerate(windows):
        window_HWC = torch.from_numpy(np.ascontiguousarray(source_NHWC[n, top:bottom, left:right]))
        window_1CHW = window_HWC.view(1, *window_HWC.shape).permute(0, 3, 1, 2)  # which torch knows as channels_last
        crop_1CHW = F.interpolate(window_1CHW, (height, width), mode="bilinear", antialias=True)
        crop_CHW = crop_1CHW[0].flip(-1) if flips[n] else crop_1CHW[0]
        target_NHWC[n] = crop_CHW.permute(1, 2, 0).numpy()
    return crops_NHWC.permute(0, 3, 1, 2)


def warp(images_NCHW: Tensor, matrix_N23: Tensor, *, reflect: bool) -> Tensor:
    """Sample images in [0, 1], or uint8 ones, where the matrices say: from coordinates of the outcome to those of the
    source; float32 in [0, 1].

    Both run from -1 to 1 between the outer edges of the image, x first (M. Jaderberg et al., "Spatial transformer
    networks", 2015). Bilinear; bicubic in tiny images, which bilinear sampling blurs so much that it costs accuracy
    (8 x 8 digits, 6 seeds each: 99.4 % instead of 99.2 %), and where 5 times as long is still nothing.
    """
    if images_NCHW.device.type != "cpu" or len(images_NCHW) <= 1:
        return _warped(images_NCHW, matrix_N23, reflect)
    # A few at a time: what is made on the way stays in the processor's cache.
    few = max(1, _AT_ONCE // images_NCHW[0].numel())
    warped_NCHW = torch.empty(images_NCHW.shape, dtype=torch.float32)
    for start in range(0, len(images_NCHW), few):
        part = slice(start, start + few)
        warped_NCHW[part] = _warped(images_NCHW[part], matrix_N23[part], reflect)
    return warped_NCHW


def _warped(images_NCHW: Tensor, matrix_N23: Tensor, reflect: bool) -> Tensor:
    images_NCHW = to_float(images_NCHW)
    height, width = images_NCHW.shape[2:]
    x_W = torch.arange(1, 2 * width, 2, device=images_NCHW.device) / width - 1
    y_H = torch.arange(1, 2 * height, 2, device=images_NCHW.device) / height - 1
    first_N2, second_N2, offset_N2 = matrix_N23.unbind(2)
    rows_NH12 = (y_H[:, None] * second_N2[:, None] + offset_N2[:, None])[:, :, None]
    columns_N1W2 = (x_W[:, None] * first_N2[:, None])[:, None]
    grid_NHW2 = rows_NH12 + columns_N1W2
    # Brought in here, as not every device samples beyond the border in all ways. The outermost places are the centres
    # of the outermost pixels; reflection is about the outer edge.
    if reflect:
        # By reflection a whole image beyond the edge; farther out by the border that is met there.
        grid_NHW2 = grid_NHW2.clamp(-1, 1).mul_(2).sub_(grid_NHW2)
    grid_NHW2[..., 0].clamp_(1 / width - 1, 1 - 1 / width)
    grid_NHW2[..., 1].clamp_(1 / height - 1, 1 - 1 / height)
    if max(height, width) > _TINY or images_NCHW.device.type == "mps":  # mps has no bicubic sampling
        return F.grid_sample(images_NCHW, grid_NHW2, mode="bilinear", padding_mode="zeros", align_corners=False)
    warped_NCHW = F.grid_sample(images_NCHW, grid_NHW2, mode="bicubic", padding_mode="reflection", align_corners=False)
    return warped_NCHW.clamp_(0, 1)  # cubics overshoot
