"""classifier/augment/auto.py: the 14 operations, their strengths, and how they are drawn."""

import pytest
import torch
import torch.nn.functional as F

from classifier.augment import auto
from classifier.augment.auto import NARROW, OPERATIONS, WIDE
from classifier.runtime import counter_rng

COUNT = 4000
POSITIONS = torch.arange(COUNT)
KEY = counter_rng.key(0, 0)
BYTES = (F.interpolate(torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)), 24) * 255).to(torch.uint8)
IMAGES = BYTES.float() / 255
NONE, ALL = torch.zeros(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
# Operation -> torchvision's name and its magnitude at full strength.
TORCHVISION = {
    "identity": ("Identity", 0.0),
    "rotate": ("Rotate", 30.0),
    "translate_x": ("TranslateX", 150 / 331 * 24),
    "translate_y": ("TranslateY", 150 / 331 * 24),
    "brightness": ("Brightness", 0.9),
    "saturation": ("Color", 0.9),
    "contrast": ("Contrast", 0.9),
    "sharpness": ("Sharpness", 0.9),
    "autocontrast": ("AutoContrast", 0.0),
    "equalize": ("Equalize", 0.0),
}


def apply(name: str, strength: float, minus_N=NONE, ranges=NARROW) -> torch.Tensor:
    operation_N = torch.full((8,), OPERATIONS.index(name))
    return auto.apply_operations(IMAGES, operation_N, torch.full((8,), strength), minus_N, ranges, reflect=False)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_zero_is_the_identity(name):
    if name not in ("autocontrast", "equalize"):  # these have no strength
        torch.testing.assert_close(apply(name, 0.0), IMAGES, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "identity"])
def test_full_strength_changes_images(name):
    assert (apply(name, 1.0) - IMAGES).abs().mean() > 0.005


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("minus", [False, True])
def test_operations_match_torchvision(name, minus):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    tv_name, full = TORCHVISION[name]
    strength = 0.5 if "translate" not in name else 5 * 331 / 150 / 24  # torchvision moves by whole pixels
    ours = apply(name, strength, ALL if minus else NONE)
    clockwise = -1 if name == "rotate" else 1  # torchvision rotates the other way here than in its affine
    magnitude = strength * full * clockwise * (-1 if minus else 1)
    expected = torch.stack([_apply_op(b, tv_name, magnitude, InterpolationMode.BILINEAR, [0.0] * 3) for b in BYTES])
    inside = torch.ones_like(IMAGES, dtype=torch.bool)
    if name in auto.GEOMETRIC_OPERATIONS:
        white = torch.full_like(BYTES, 255)
        filled = [_apply_op(b, tv_name, magnitude, InterpolationMode.BILINEAR, [0.0] * 3) for b in white]
        inside = torch.stack(filled) == 255
    # torchvision rounds down to whole bytes, some operations twice.
    torch.testing.assert_close(ours[inside], expected[inside].float() / 255, atol=2.01 / 255, rtol=0)


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear_is_a_slope_about_the_centre(name):
    # A line through the centre, perpendicular to the shear, is tilted by the slope; the centre stays.
    image = torch.zeros(8, 1, 41, 41)
    image[..., 19:22] = 1.0
    image = image if name == "shear_x" else image.transpose(2, 3)
    operation_N = torch.full((8,), OPERATIONS.index(name))
    sheared = auto.apply_operations(image, operation_N, torch.ones(8), NONE, NARROW, reflect=False)
    lines = sheared[0, 0] if name == "shear_x" else sheared[0, 0].T
    centres_H = (lines * torch.arange(41)).sum(1) / lines.sum(1)
    slopes = centres_H[11:31].diff()
    assert centres_H[20] == pytest.approx(20, abs=0.05)
    assert slopes.abs().mean() == pytest.approx(0.3, abs=0.02)


def test_operations_do_not_depend_on_the_batch():
    operation_N = torch.arange(len(OPERATIONS))
    images = IMAGES[:1].expand(len(OPERATIONS), -1, -1, -1)
    strength_N, minus_N = torch.linspace(0.2, 1, 14), torch.arange(14) % 2 == 0
    whole = auto.apply_operations(images, operation_N, strength_N, minus_N, WIDE, reflect=True)
    for n in range(14):
        one = slice(n, n + 1)
        single = auto.apply_operations(images[one], operation_N[one], strength_N[one], minus_N[one], WIDE, reflect=True)
        assert torch.equal(whole[one], single)


def test_trivialaugment_draws_operations_uniformly():
    flat = torch.rand(COUNT, 1, 4, 4)
    changed = auto.trivialaugment(flat, ranges=WIDE, key=KEY, positions_N=POSITIONS, reflect=False)
    untouched = (changed == flat).all((1, 2, 3)).float().mean()
    # Identity (and saturation on greyscale) change nothing; the other 12 change nothing at strength 0, 1 level of 31.
    assert untouched == pytest.approx(2 / 14 + 12 / 14 / 31, abs=0.04)


def test_randaugment_layers_are_applied_in_sequence():
    def run(layers: int) -> torch.Tensor:
        return auto.randaugment(
            IMAGES, layers=layers, magnitude=9, ranges=NARROW, key=KEY, positions_N=POSITIONS[:8], reflect=True
        )

    assert torch.equal(run(0), IMAGES)
    assert not torch.equal(run(1), run(2))
    assert torch.equal(run(2), run(2))
    assert run(8).min() >= 0
    assert run(8).max() <= 1
