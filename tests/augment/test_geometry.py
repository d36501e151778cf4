"""classifier/augment/geometry.py against torchvision and against pixel copies."""

import pytest
import torch
import torch.nn.functional as F

from classifier.augment import geometry

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (6, 3, 12, 16), generator=GENERATOR, dtype=torch.uint8)
SMOOTH = F.interpolate(torch.rand(3, 3, 5, 5, generator=GENERATOR), size=(24, 32), mode="bilinear")


def affine(count: int, height: int, width: int, **changes: float) -> torch.Tensor:
    names = ("degrees", "scale", "shear_x", "shear_y", "right", "down")
    values = {f"{name}_N": torch.full((count,), changes.get(name, float(name == "scale"))) for name in names}
    return geometry.affine_matrix(height, width, **values)


@pytest.mark.parametrize(("reflect", "mode"), [(False, "edge"), (True, "symmetric")])
def test_flip_and_shift_is_a_padded_crop(reflect, mode):
    from torchvision.transforms import functional as tv

    right_N, down_N = torch.tensor([0, 3, -3, 1, -2, 0]), torch.tensor([0, 2, -1, -4, 4, 3])
    flip_N = torch.tensor([False, True, False, True, True, False])
    moved = geometry.flip_and_shift(IMAGES, flip_N, right_N, down_N, reflect=reflect)
    assert moved.dtype == torch.uint8
    for n, image in enumerate(IMAGES):
        image = tv.hflip(image) if flip_N[n] else image
        padded = tv.pad(image, [4], padding_mode=mode)
        expected = tv.crop(padded, 4 - int(down_N[n]), 4 - int(right_N[n]), 12, 16)
        assert torch.equal(moved[n], expected)


def test_downsize_averages_the_pixels_that_it_removes():
    from torchvision.transforms import functional as tv

    square = IMAGES[..., :12]
    small = geometry.downsize(square, 6)
    assert small.dtype == torch.uint8
    torch.testing.assert_close(small, tv.resize(square, [6, 6], antialias=True), rtol=0, atol=1)
    floats = geometry.downsize(geometry.to_float(square), 6)
    torch.testing.assert_close(floats * 255, small.float(), rtol=0, atol=1)
    assert geometry.downsize(square, 12) is geometry.downsize(square, 16) is square


def test_flip_only():
    flip_N = torch.tensor([True, False] * 3)
    moved = geometry.flip_and_shift(IMAGES, flip_N, None, None, reflect=False)
    assert torch.equal(moved[::2], IMAGES[::2].flip(-1))
    assert torch.equal(moved[1::2], IMAGES[1::2])
    assert geometry.flip_and_shift(IMAGES, None, None, None, reflect=False) is IMAGES


@pytest.mark.parametrize(
    "changes",
    [
        {"degrees": 25.0},
        {"scale": 1.3},
        {"scale": 0.8, "degrees": -40.0},
        {"shear_x": 20.0},
        {"shear_y": -15.0, "shear_x": 10.0},
        {"right": 0.25, "down": -0.125},
        {"degrees": 10.0, "scale": 1.2, "shear_x": -8.0, "right": -0.0625, "down": 0.25},
    ],
)
def test_affine_matrix_matches_torchvision(changes):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    height, width = SMOOTH.shape[2:]
    ours = geometry.warp(SMOOTH, affine(3, height, width, **changes), reflect=False)
    expected, inside = (
        tv.affine(
            image,
            angle=changes.get("degrees", 0.0),
            translate=[round(changes.get("right", 0) * width), round(changes.get("down", 0) * height)],
            scale=changes.get("scale", 1.0),
            shear=[changes.get("shear_x", 0.0), changes.get("shear_y", 0.0)],
            interpolation=InterpolationMode.BILINEAR,
        )
        for image in (SMOOTH, torch.ones_like(SMOOTH))
    )
    inside = inside > 0.999  # torchvision fills with black, this repeats the border
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(ours[inside], expected[inside], atol=2e-4, rtol=0)


def test_identity_matrix_changes_nothing():
    for reflect in (False, True):
        warped = geometry.warp(SMOOTH, affine(3, 24, 32), reflect=reflect)
        torch.testing.assert_close(warped, SMOOTH, atol=2e-5, rtol=0)


def test_tiny_images_are_sampled_bicubically():
    tiny = SMOOTH[:, :, 4:20, 4:20]
    for scale in (1.0, 1.1):
        matrix = affine(3, 16, 16, right=0.5 / 16, scale=scale)
        warped = geometry.warp(tiny, matrix, reflect=False)
        grid = F.affine_grid(matrix, [3, 3, 16, 16], align_corners=False)
        bilinear, bicubic = (F.grid_sample(tiny, grid, m, "border", False) for m in ("bilinear", "bicubic"))
        torch.testing.assert_close(warped[..., 3:-3], bicubic.clamp(0, 1)[..., 3:-3], atol=1e-5, rtol=0)
        assert (warped - bilinear).abs().max() > 1e-3
    edges = (SMOOTH[:, :, 4:20, 4:20] > 0.5).float()
    warped = geometry.warp(edges, affine(3, 16, 16, degrees=30.0), reflect=False)
    assert warped.min() >= 0
    assert warped.max() <= 1


@pytest.mark.parametrize("reflect", [False, True])
def test_warp_by_whole_pixels_equals_flip_and_shift(reflect):
    images = IMAGES.float() / 255
    right_N, down_N = torch.tensor([0, 3, -3, 1, -2, 8]), torch.tensor([0, 2, -1, -4, 4, -6])
    flip_N = torch.tensor([False, True] * 3)
    matrix = geometry.affine_matrix(
        12,
        16,
        degrees_N=torch.zeros(6),
        scale_N=torch.ones(6),
        shear_x_N=torch.zeros(6),
        shear_y_N=torch.zeros(6),
        right_N=right_N / 16,
        down_N=down_N / 12,
    )
    warped = geometry.warp(images, geometry.flip_matrix(matrix, flip_N), reflect=reflect)
    copied = geometry.flip_and_shift(images, flip_N, right_N, down_N, reflect=reflect)
    torch.testing.assert_close(warped, copied, atol=1e-4, rtol=0)


def test_crop_matrix_resizes_a_window():
    # A quarter of the area with the image's own aspect (4 : 3): a window of half the width and height.
    images = SMOOTH[:2]
    matrix = geometry.crop_matrix(
        affine(2, 24, 32),
        torch.full((2,), 0.25),
        torch.full((2,), 32 / 24),
        torch.tensor([0.0, 0.5]),
        torch.tensor([1.0, 0.25]),
        square=24 / 32,
    )
    warped = geometry.warp(images, matrix, reflect=True)
    windows = torch.stack([images[0, :, 12:24, 0:16], images[1, :, 3:15, 8:24]])
    expected = F.interpolate(windows, size=(24, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(warped[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_crop_of_the_whole_image_changes_nothing():
    ones = torch.ones(3)
    matrix = geometry.crop_matrix(affine(3, 24, 24), ones, ones, 0.3 * ones, 0.9 * ones)
    torch.testing.assert_close(matrix, affine(3, 24, 24))


@pytest.mark.parametrize("threads", [1, 2])
def test_resized_crops_match_torchvision(threads):
    from torchvision.transforms import functional as tv

    images = torch.randint(0, 256, (5, 3, 40, 60), dtype=torch.uint8)
    area, aspect = torch.tensor([0.25, 1.0, 0.1, 0.5, 0.3]), torch.tensor([1.0, 1.5, 0.75, 2.0, 0.9])
    x, y = torch.tensor([0.0, 0.3, 0.999, 0.5, 0.2]), torch.tensor([0.0, 0.6, 0.999, 0.25, 0.9])
    flip, before = torch.tensor([False, True, False, True, True]), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        crops = geometry.resized_crops(images, area, aspect, x, y, flip)
        plain = geometry.resized_crops(images, area, aspect, x, y, None)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(plain[1], images[1])
    torch.testing.assert_close(crops[1], images[1].flip(-1))
    wide, high = round((0.25 * 2400) ** 0.5), round((0.25 * 2400) ** 0.5)
    expected = tv.resized_crop(images[0], 0, 0, high, wide, [40, 60], antialias=True)
    torch.testing.assert_close(crops[0], expected, atol=1, rtol=0)
    wide, high = round((0.1 * 0.75 * 2400) ** 0.5), round((0.1 / 0.75 * 2400) ** 0.5)
    expected = tv.resized_crop(images[2], 40 - high, 60 - wide, high, wide, [40, 60], antialias=True)
    torch.testing.assert_close(crops[2], expected, atol=1, rtol=0)
    torch.testing.assert_close(crops[3:].flip(-1), plain[3:])
