"""classifier/augment/policy.py: the table, and properties of every policy and every single augmentation."""

import dataclasses

import pytest
import torch

from classifier.augment import geometry, policy
from classifier.config.sections import AugmentConfig
from classifier.errors import ConfigError
from classifier.runtime import counter_rng

KEY = counter_rng.key(7, 3)
COLOUR = torch.randint(0, 256, (12, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
GREY = COLOUR[:, :1].contiguous()
POSITIONS = torch.arange(100, 112)
STRENGTHS = {
    "flip": 0.5,
    "rotate": 30.0,
    "scale": 0.3,
    "shear": 20.0,
    "shift": 0.2,
    "crop": 0.3,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.2,
    "erase": 0.7,
    "randaugment": 3,
    "trivial": True,
}
CASES = [{name: value} for name, value in STRENGTHS.items()]
CASES += [{"policy": name} for name in policy.POLICIES] + [STRENGTHS, {"flip": 0.5, "shift": 0.2, "erase": 0.7}]


def resolved(channels: int = 3, **changes) -> AugmentConfig:
    config = dataclasses.replace(AugmentConfig(policy="none"), **changes)
    return policy.resolve(config, kind="photos", channels=channels, size=24)


def augment(images, config, key=KEY, positions=POSITIONS):
    return geometry.to_float(policy.augment(images, config, key=key, positions_N=positions))


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "+".join(map(str, c)) if len(c) < 4 else "all")
def test_augmentation_does_not_depend_on_the_batch(changes):
    config = resolved(**changes)
    before = COLOUR.clone()
    whole = augment(COLOUR, config)
    assert whole.dtype == torch.float32
    assert whole.shape == COLOUR.shape
    assert whole.min() >= 0
    assert whole.max() <= 1 + 1e-6
    assert torch.equal(COLOUR, before)
    cut = [augment(COLOUR[low:high], config, positions=POSITIONS[low:high]) for low, high in ((0, 1), (1, 7), (7, 12))]
    torch.testing.assert_close(torch.cat(cut), whole, atol=1e-6, rtol=0)
    shuffled = torch.randperm(12)
    torch.testing.assert_close(augment(COLOUR[shuffled], config, positions=POSITIONS[shuffled]), whole[shuffled])
    channels_last = augment(COLOUR.contiguous(memory_format=torch.channels_last), config)
    torch.testing.assert_close(channels_last, whole, atol=1e-6, rtol=0)


def test_crop_of_large_images_does_not_depend_on_the_batch():
    images = torch.nn.functional.interpolate(255 * torch.rand(5, 3, 9, 9), size=130, mode="bilinear").byte()
    config = dataclasses.replace(resolved(crop=0.3, flip=0.5), policy="none")
    whole, positions = augment(images, config, positions=torch.arange(5)), torch.arange(5)
    parts = [augment(images[low:high], config, positions=positions[low:high]) for low, high in ((0, 2), (2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    as_float = policy.augment(images.float() / 255, config, key=KEY, positions_N=positions)
    assert (whole - as_float).abs().mean() < (whole - whole.flip(0)).abs().mean() / 4


@pytest.mark.parametrize("changes", CASES[: len(STRENGTHS)], ids=lambda c: next(iter(c)))
def test_each_augmentation_changes_images_and_depends_on_the_key(changes):
    config = resolved(**changes)
    assert not torch.equal(augment(COLOUR, config), geometry.to_float(COLOUR))
    assert not torch.equal(augment(COLOUR, config), augment(COLOUR, config, key=counter_rng.key(7, 4)))
    assert not torch.equal(augment(COLOUR, config), augment(COLOUR, config, key=counter_rng.key(8, 3)))
    assert torch.equal(augment(COLOUR, config), augment(COLOUR, config))


def test_policy_none_only_scales():
    assert torch.equal(augment(COLOUR, resolved()), COLOUR.float() / 255)
    torch.testing.assert_close(augment(COLOUR, resolved(rotate=1e-4)), COLOUR.float() / 255, atol=1e-3, rtol=0)


def test_augmentations_use_independent_random_numbers():
    flipped = augment(COLOUR, resolved(flip=0.5))
    assert 0 < (flipped != geometry.to_float(COLOUR)).flatten(1).any(1).sum() < 12
    both = augment(COLOUR, resolved(flip=0.5, brightness=1e-6))
    torch.testing.assert_close(both, flipped, atol=1e-5, rtol=0)


def test_flip_probability_and_uniform_shifts():
    count = 6000
    images = torch.zeros(count, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 3] = 255
    positions = torch.arange(count)
    flipped = augment(images, resolved(1, flip=0.3), positions=positions)
    assert flipped[:, 0, 4, 5].mean() == pytest.approx(0.3, abs=0.02)
    shifted = augment(images, resolved(1, shift=0.23), positions=positions)  # 2 pixels of 9
    shares = shifted.mean(0)[0, 2:7, 1:6]
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(shares, torch.full((5, 5), 1 / 25), atol=0.012, rtol=0)


def test_small_shift_moves_by_a_pixel():
    assert not torch.equal(augment(COLOUR, resolved(shift=0.001)), geometry.to_float(COLOUR))


def test_borders_are_never_black():
    white = torch.full((12, 3, 24, 24), 255, dtype=torch.uint8)
    changes = {name: STRENGTHS[name] for name in ("flip", "rotate", "scale", "shear", "shift", "crop")}
    changes |= dict.fromkeys(("brightness", "contrast", "saturation"), 0.0)
    for name in ("none", "photos"):
        torch.testing.assert_close(augment(white, resolved(policy=name, **changes)), geometry.to_float(white))


def test_erase_probability():
    count = 3000
    images = torch.randint(0, 256, (count, 1, 12, 12), dtype=torch.uint8)
    erased = augment(images, resolved(1, erase=0.4), positions=torch.arange(count))
    touched = (erased != geometry.to_float(images)).flatten(1).any(1).float().mean()
    assert touched == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("kind", ["symbols", "objects", "photos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_auto_uses_the_image_kind_and_sets_every_strength(kind, channels):
    config = policy.resolve(AugmentConfig(), kind=kind, channels=channels, size=96)
    assert config.policy == kind
    assert None not in dataclasses.asdict(config).values()
    assert policy.resolve(config, kind="symbols", channels=channels, size=8) == config
    assert (config.flip == 0) == (kind == "symbols")
    assert (config.saturation or 0) == (0.2 if kind == "photos" and channels == 3 else 0)


def test_small_photographs_are_treated_as_objects():
    assert policy.resolve(AugmentConfig(), kind="photos", channels=3, size=32).policy == "objects"
    assert policy.resolve(AugmentConfig(policy="photos"), kind="photos", channels=3, size=32).policy == "photos"


def test_explicit_settings_are_kept():
    config = policy.resolve(AugmentConfig(flip=0.1, crop=0.9), kind="photos", channels=3, size=96)
    assert (config.flip, config.crop, config.brightness) == (0.1, 0.9, 0.2)


@pytest.mark.parametrize(
    ("kind", "changes", "is_mirrored"),
    [
        ("photos", {}, True),
        ("symbols", {}, False),
        ("symbols", {"flip": 0.5}, True),
        ("symbols", {"policy": "symbols"}, True),  # also a resolved experiment of an earlier version
    ],
)
def test_symbols_that_auto_finds_are_not_mirrored_in_the_test(kind, changes, is_mirrored):
    config = AugmentConfig(test_flip=True, **changes)
    assert policy.resolve(config, kind=kind, channels=1, size=28).test_flip == is_mirrored


def test_every_policy_sets_every_strength():
    names = {f.name for f in dataclasses.fields(AugmentConfig)} - {"policy", "test_flip", "strength", "views"}
    assert all(set(table) == names for table in policy.POLICIES.values())


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_colour_settings_on_greyscale_images_are_refused(name):
    config = dataclasses.replace(AugmentConfig(), **{name: 0.1})
    with pytest.raises(ConfigError, match=rf"augment.{name} is 0.1, but the images are greyscale.*--data.channels 3"):
        policy.resolve(config, kind="photos", channels=1, size=96)


def test_symbols_stay_upright_under_trivialaugment():
    # An arrow that points up has its mass above the centre, and keeps it there.
    arrow = torch.zeros(300, 1, 21, 21, dtype=torch.uint8)
    arrow[:, :, 3:6, 8:13] = 255
    changed = augment(arrow, resolved(1, policy="symbols", rotate=0.0, trivial=True), positions=torch.arange(300))
    deviation = (changed - changed.mean((2, 3), keepdim=True)).abs()
    assert (deviation[..., :10, :].sum((1, 2, 3)) >= deviation[..., 11:, :].sum((1, 2, 3))).all()


LABELS = torch.arange(12) % 4


def mix(config, images=COLOUR / 255, labels=LABELS):
    return policy.mix_batch(images, labels, config, classes=4, key=KEY, positions_N=torch.arange(len(labels)))


def test_without_mixing_labels_are_returned_unchanged():
    images = COLOUR / 255
    mixed, targets = policy.mix_batch(images, LABELS, resolved(), classes=4, key=KEY, positions_N=POSITIONS)
    assert mixed is images
    assert targets is LABELS


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_targets_match_the_mixed_images(changes):
    labels = torch.arange(4000) % 4
    images = (labels / 4)[:, None, None, None].expand(-1, 1, 6, 6)
    mixed, targets = mix(resolved(1, **changes), images, labels)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(4000))
    # The mean of an image is the mean of its targets' values: blends and pastes alike.
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ (torch.arange(4) / 4), atol=1e-5, rtol=0)
    own_N = targets.gather(1, labels[:, None])[:, 0]
    pasted = mixed.flatten(1).amax(1) - mixed.flatten(1).amin(1) > 1e-6
    assert (not pasted.any()) == ("cutmix" not in changes)
    if "cutmix" not in changes:
        assert own_N.mean() == pytest.approx(0.5, abs=0.02)
        assert own_N.var() == pytest.approx(1 / (4 * 1.8), rel=0.06)
    if len(changes) == 2:
        assert pasted.float().mean() == pytest.approx(0.5, abs=0.08)


def test_normalise():
    from torchvision.transforms import functional as tv

    images = COLOUR / 255
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    torch.testing.assert_close(policy.normalise(images, mean, std), tv.normalize(images, list(mean), list(std)))
    torch.testing.assert_close(policy.normalise(images[:, :1], (0.4,), (0.2,)), (images[:, :1] - 0.4) / 0.2)
    assert torch.isfinite(policy.normalise(images, mean, (0.0, 0.0, 0.0))).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_matches_cpu():
    config = resolved(**STRENGTHS)
    gpu = policy.augment(COLOUR.cuda(), config, key=KEY, positions_N=POSITIONS.cuda())
    close = ((gpu.cpu() - augment(COLOUR, config)).abs() < 1e-3).float().mean()
    assert close > 0.98  # rounding may cross a step (posterize, equalize)


def test_strength_multiplies_every_strength_once():
    half = resolved(policy="photos", strength=0.5, erase=0.4)
    assert (half.brightness, half.erase, half.strength) == (0.1, 0.2, 1.0)
    assert half.crop == pytest.approx(1 - 0.5 * (1 - policy.POLICIES["photos"]["crop"]))
    assert half.flip == 0.5  # a probability, not a strength
    assert policy.resolve(half, kind="photos", channels=3, size=24) == half


def test_strength_is_clipped_to_the_ranges():
    most = resolved(rotate=100.0, scale=0.8, shear=40.0, shift=0.4, hue=0.3, crop=0.3, magnitude=20, strength=3.0)
    assert (most.rotate, most.scale, most.shear, most.shift, most.hue) == (180.0, 0.9, 60.0, 0.5, 0.5)
    assert (most.crop, most.magnitude) == (0.05, 30)


def test_strength_zero_changes_nothing():
    none = resolved(policy="photos", strength=0.0)
    assert (none.crop, none.brightness, none.contrast, none.saturation) == (1.0, 0.0, 0.0, 0.0)
