"""classifier/augment/colour.py against torchvision.transforms.functional, image by image."""

import pytest
import torch

from classifier.augment import colour

BYTES = torch.randint(0, 256, (5, 3, 9, 11), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
BYTES[3] = BYTES[3] // 4 + 90  # of low contrast
BYTES[4, :] = BYTES[4, :1]  # greyscale in three channels
IMAGES = BYTES.float() / 255
FACTORS = torch.tensor([0.0, 0.4, 1.0, 1.5, 1.9])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
@pytest.mark.parametrize("channels", [1, 3])
def test_factors_match_torchvision(name, channels):
    from torchvision.transforms import functional as tv

    images = IMAGES[:, :channels]
    ours = getattr(colour, name)(images, FACTORS)
    for n, image in enumerate(images):
        expected = getattr(tv, f"adjust_{name}")(image, float(FACTORS[n]))
        torch.testing.assert_close(ours[n], expected, atol=1e-3 if name in ("contrast", "saturation") else 1e-6, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_factor_one_is_the_identity(name):
    torch.testing.assert_close(getattr(colour, name)(IMAGES, torch.ones(5)), IMAGES, atol=1e-6, rtol=0)


def test_hue_matches_torchvision():
    from torchvision.transforms import functional as tv

    turns = torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.45])
    ours = colour.hue(IMAGES, turns)
    for n, image in enumerate(IMAGES):
        torch.testing.assert_close(ours[n], tv.adjust_hue(image, float(turns[n])), atol=1e-5, rtol=0)
    torch.testing.assert_close(colour.hue(IMAGES, torch.zeros(5)), IMAGES, atol=1e-6, rtol=0)


def test_greyscale_images_have_no_hue_and_no_saturation():
    grey = IMAGES[:, :1]
    assert colour.hue(grey, FACTORS) is grey
    assert colour.saturation(grey, FACTORS) is grey


def test_posterize_matches_torchvision():
    from torchvision.transforms import functional as tv

    bits = torch.tensor([1, 2, 4, 7, 8])
    ours = (colour.posterize(IMAGES, bits) * 255).round().to(torch.uint8)
    for n, image in enumerate(BYTES):
        assert torch.equal(ours[n], tv.posterize(image, int(bits[n])))
    assert torch.equal(colour.posterize(IMAGES, torch.full((5,), 8)), IMAGES)


def test_solarize_matches_torchvision():
    from torchvision.transforms import functional as tv

    thresholds = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.1])
    ours = colour.solarize(IMAGES, thresholds)
    for n, image in enumerate(IMAGES[:4]):
        torch.testing.assert_close(ours[n], tv.solarize(image, float(thresholds[n])))
    assert torch.equal(ours[4], IMAGES[4])


def test_autocontrast_matches_torchvision():
    from torchvision.transforms import functional as tv

    images = torch.cat([IMAGES, torch.full((1, 3, 9, 11), 0.3)])
    torch.testing.assert_close(colour.autocontrast(images), tv.autocontrast(images), atol=1e-6, rtol=0)


def test_equalize_matches_torchvision():
    from torchvision.transforms import functional as tv

    photo = (torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(2)) ** 3 * 200).to(torch.uint8)
    photo[3] = 77  # constant
    for images in (photo, BYTES):
        ours = (colour.equalize(images.float() / 255) * 255).round().to(torch.uint8)
        assert torch.equal(ours, tv.equalize(images))
