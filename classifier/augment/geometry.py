"""Geometric operations: flip, shift, rotate, scale, shear and crop, with one strength per image.

They are combined to one 2 x 3 matrix per image and one sampling per batch. Flips and shifts by whole pixels copy pixels
instead: exact, on uint8, and about 10 times faster. Outside pixels repeat the border or reflect the image; they are
never black, since a black frame would tell the model how an image was transformed.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Images up to this size, in pixels, are sampled bicubically.
_MAX_TINY_SIZE = 16
# Image values sampled per chunk on a CPU.
_CHUNK_VALUES = 1 << 20


def to_float(images_NCHW: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [0, 1]; return float images unchanged."""
    if images_NCHW.is_floating_point():
        return images_NCHW
    return images_NCHW.to(torch.float32).div_(255)


def downsize(images_NCHW: Tensor, size: int) -> Tensor:
    """Resize larger square images to `size` pixels, bilinearly and without aliasing; return others unchanged.

    uint8 images stay uint8 on a CPU; on other devices, which cannot resize them, they become float32 in [0, 1].
    """
    if images_NCHW.shape[-1] <= size:
        return images_NCHW
    if images_NCHW.device.type != "cpu":
        images_NCHW = to_float(images_NCHW)
    return F.interpolate(images_NCHW, (size, size), mode="bilinear", antialias=True)


def flip_and_shift(
    images_NCHW: Tensor, flip_N: Tensor | None, right_N: Tensor | None, down_N: Tensor | None, *, reflect: bool
) -> Tensor:
    """Flip horizontally, then shift by whole pixels, for any dtype ("crop with padding").

    flip_N: bool. right_N, down_N: int64, smaller than the image size in magnitude. None: no flip, no shift.
    """
    _, channels, height, width = images_NCHW.shape
    if right_N is None or down_N is None:
        if flip_N is None:
            return images_NCHW
        return torch.where(flip_N[:, None, None, None], images_NCHW.flip(-1), images_NCHW)
    device = images_NCHW.device
    rows_NH = _fold_indices(torch.arange(height, device=device) - down_N[:, None], height, reflect)
    columns_NW = _fold_indices(torch.arange(width, device=device) - right_N[:, None], width, reflect)
    if flip_N is not None:
        columns_NW = torch.where(flip_N[:, None], width - 1 - columns_NW, columns_NW)
    indices_NP = (rows_NH[:, :, None] * width + columns_NW[:, None, :]).flatten(1)
    indices_NCP = indices_NP[:, None].expand(-1, channels, -1)
    return images_NCHW.flatten(2).gather(2, indices_NCP).view(images_NCHW.shape)


def _fold_indices(indices: Tensor, length: int, reflect: bool) -> Tensor:
    """Map indices outside [0, length) inside, to the border or by reflection (which repeats the border pixel)."""
    if not reflect:
        return indices.clamp_(0, length - 1)
    indices = torch.where(indices < 0, -1 - indices, indices)
    return torch.where(indices >= length, 2 * length - 1 - indices, indices)


def affine_matrix(
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
    """Return matrix_N23 for `warp` that shears, scales, rotates about the centre and then shifts the image.

    degrees_N: clockwise. scale_N: above 1 enlarges. shear_x_N, shear_y_N: in degrees. right_N, down_N: as fractions of
    the image size. The convention, and the inverse, are those of torchvision.transforms.functional.affine.
    """
    angle_N, x_N, y_N = (torch.deg2rad(t) for t in (degrees_N, shear_x_N, shear_y_N))
    a_N = torch.cos(angle_N - y_N) / torch.cos(y_N)
    c_N = torch.sin(angle_N - y_N) / torch.cos(y_N)
    b_N = -a_N * torch.tan(x_N) - torch.sin(angle_N)
    d_N = -c_N * torch.tan(x_N) + torch.cos(angle_N)
    # The inverse, since sampling maps output pixels to input coordinates; the determinant is scale^2.
    inverse_N22 = torch.stack([d_N, -b_N * (height / width), -c_N * (width / height), a_N], 1).view(-1, 2, 2)
    inverse_N22 = inverse_N22 / scale_N[:, None, None]
    shift_N2 = torch.stack([right_N, down_N], 1) * -2  # sampling coordinates run from -1 to 1
    offset_N2 = inverse_N22[:, :, 0] * shift_N2[:, :1] + inverse_N22[:, :, 1] * shift_N2[:, 1:]
    return torch.cat([inverse_N22, offset_N2[:, :, None]], 2)


def flip_matrix(matrix_N23: Tensor, flip_N: Tensor) -> Tensor:
    """Return matrix_N23 with a horizontal flip before it, where flip_N (bool) is true."""
    sign_N = torch.where(flip_N, -1.0, 1.0)
    return torch.stack([matrix_N23[:, 0] * sign_N[:, None], matrix_N23[:, 1]], 1)


def crop_matrix(
    matrix_N23: Tensor, area_N: Tensor, aspect_N: Tensor, u_x_N: Tensor, u_y_N: Tensor, *, square: float = 1.0
) -> Tensor:
    """Return matrix_N23 followed by a crop of a window that is resized to the whole image (random resized crop).

    area_N: the window's fraction of the area. aspect_N: its width / height in pixels, before it is clipped to the
    image. u_x_N, u_y_N: in [0, 1], its position in the remaining space. square: the image's height / width.
    After C. Szegedy et al., "Going deeper with convolutions", 2015, where windows that do not fit are drawn again.
    """
    width_N = (area_N * aspect_N * square).sqrt().clamp_max(1)
    height_N = (area_N / aspect_N / square).sqrt().clamp_max(1)
    x_N, y_N = (2 * u_x_N - 1) * (1 - width_N), (2 * u_y_N - 1) * (1 - height_N)
    first_N2, second_N2, offset_N2 = matrix_N23.unbind(2)
    offset_N2 = offset_N2 + first_N2 * x_N[:, None] + second_N2 * y_N[:, None]
    return torch.stack([first_N2 * width_N[:, None], second_N2 * height_N[:, None], offset_N2], 2)


def resized_crops(
    images_NCHW: Tensor,
    area_N: Tensor,
    aspect_N: Tensor,
    u_x_N: Tensor,
    u_y_N: Tensor,
    flip_N: Tensor | None,
    size: int | None = None,
) -> Tensor:
    """Crop the windows of `crop_matrix` at whole pixels, resize them bilinearly, and flip them where flip_N is true.

    size: of the square crops, in pixels; if unset, that of the images.
    uint8 images on a CPU, in a quarter of the time of `warp`: one image per call, so that only its window is read.
    Returns channels_last, the format in which torch resizes; images that are channels_last already are read faster.
    """
    height, width = images_NCHW.shape[2:]
    wide_N = (area_N * aspect_N * (height * width)).sqrt().round().clamp(1, width)
    high_N = (area_N / aspect_N * (height * width)).sqrt().round().clamp(1, height)
    left_N, top_N = (u_x_N * (width - wide_N + 1)).floor(), (u_y_N * (height - high_N + 1)).floor()
    windows = torch.stack([top_N, top_N + high_N, left_N, left_N + wide_N], 1).long().tolist()
    flips = [False] * len(windows) if flip_N is None else flip_N.tolist()
    source_NHWC, shape = images_NCHW.permute(0, 2, 3, 1).numpy(), (size or height, size or width)
    crops_NHWC = torch.empty((len(windows), *shape, source_NHWC.shape[-1]), dtype=torch.uint8)
    target_NHWC = crops_NHWC.numpy()
    # One by one, copied by numpy: at 0.1 ms each they are too short for threads, torch's own included.
    for n, (top, bottom, left, right) in enumerate(windows):
        window_HWC = torch.from_numpy(np.ascontiguousarray(source_NHWC[n, top:bottom, left:right]))
        window_1CHW = window_HWC.view(1, *window_HWC.shape).permute(0, 3, 1, 2)  # channels_last for torch
        crop_1CHW = F.interpolate(window_1CHW, shape, mode="bilinear", antialias=True)
        crop_CHW = crop_1CHW[0].flip(-1) if flips[n] else crop_1CHW[0]
        target_NHWC[n] = crop_CHW.permute(1, 2, 0).numpy()
    return crops_NHWC.permute(0, 3, 1, 2)


def warp(images_NCHW: Tensor, matrix_N23: Tensor, *, reflect: bool) -> Tensor:
    """Sample images (uint8, or float in [0, 1]) with matrices that map output to input coordinates; float32 in [0, 1].

    Coordinates run from -1 to 1 between the outer edges of the image, x first (M. Jaderberg et al., "Spatial
    transformer networks", 2015). Bilinear; bicubic for tiny images, where bilinear blur costs accuracy (8 x 8 digits,
    6 seeds each: 99.4 % with bicubic, 99.2 % without) and 5 times as long still takes almost no time.
    """
    if images_NCHW.device.type != "cpu" or len(images_NCHW) <= 1:
        return _warp_chunk(images_NCHW, matrix_N23, reflect)
    # In chunks, so that intermediate results stay in the processor's cache.
    chunk_images = max(1, _CHUNK_VALUES // images_NCHW[0].numel())
    warped_NCHW = torch.empty(images_NCHW.shape, dtype=torch.float32)
    for start in range(0, len(images_NCHW), chunk_images):
        chunk = slice(start, start + chunk_images)
        warped_NCHW[chunk] = _warp_chunk(images_NCHW[chunk], matrix_N23[chunk], reflect)
    return warped_NCHW


def _warp_chunk(images_NCHW: Tensor, matrix_N23: Tensor, reflect: bool) -> Tensor:
    images_NCHW = to_float(images_NCHW)
    height, width = images_NCHW.shape[2:]
    x_W = torch.arange(1, 2 * width, 2, device=images_NCHW.device) / width - 1
    y_H = torch.arange(1, 2 * height, 2, device=images_NCHW.device) / height - 1
    first_N2, second_N2, offset_N2 = matrix_N23.unbind(2)
    rows_NH12 = (y_H[:, None] * second_N2[:, None] + offset_N2[:, None])[:, :, None]
    columns_N1W2 = (x_W[:, None] * first_N2[:, None])[:, None]
    grid_NHW2 = rows_NH12 + columns_N1W2
    # Folded into the image here, as not every device supports every padding mode. The outermost coordinates are the
    # centres of the outermost pixels; reflection is about the outer edge.
    if reflect:
        # Reflect up to one image beyond the edge; farther out repeat the border found there.
        grid_NHW2 = grid_NHW2.clamp(-1, 1).mul_(2).sub_(grid_NHW2)
    grid_NHW2[..., 0].clamp_(1 / width - 1, 1 - 1 / width)
    grid_NHW2[..., 1].clamp_(1 / height - 1, 1 - 1 / height)
    if max(height, width) > _MAX_TINY_SIZE or images_NCHW.device.type == "mps":  # mps has no bicubic sampling
        return F.grid_sample(images_NCHW, grid_NHW2, mode="bilinear", padding_mode="zeros", align_corners=False)
    warped_NCHW = F.grid_sample(images_NCHW, grid_NHW2, mode="bicubic", padding_mode="reflection", align_corners=False)
    return warped_NCHW.clamp_(0, 1)  # bicubic sampling overshoots
