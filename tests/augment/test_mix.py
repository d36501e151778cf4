"""classifier/augment/mix.py: erasing, MixUp and CutMix, and their targets."""

import pytest
import torch

from classifier.augment import mix

COUNT = 400
IMAGES = torch.rand(COUNT, 2, 10, 14, generator=torch.Generator().manual_seed(0))
BYTES = (IMAGES * 255).to(torch.uint8)
U = torch.rand(5, COUNT, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("images", [IMAGES, BYTES], ids=["float", "uint8"])
def test_erased_rectangles_hold_the_image_mean(images):
    on_N, area_N, aspect_N = U[0] < 0.5, U[1] * 0.4 + 0.1, U[2] + 0.5
    erased = mix.erase(images, on_N, area_N, aspect_N, U[3], U[4])
    assert erased.dtype == images.dtype
    assert torch.equal(erased[~on_N], images[~on_N])
    changed = (erased != images).any(1)
    share_N = changed.float().mean((1, 2))[on_N]
    torch.testing.assert_close(share_N, area_N[on_N], atol=0.1, rtol=0)
    for n in on_N.nonzero()[:20, 0].tolist():
        rows, columns = changed[n].any(1).nonzero()[:, 0], changed[n].any(0).nonzero()[:, 0]
        box = erased[n, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        mean = images[n].float().mean((1, 2))
        torch.testing.assert_close(box.amax((1, 2)), mean, atol=0.51 if images is BYTES else 1e-6, rtol=0)
        assert torch.equal(box.amin((1, 2)), box.amax((1, 2)))


def test_erasing_reaches_every_pixel():
    erased = mix.erase(IMAGES, torch.ones(COUNT) > 0, torch.full((COUNT,), 0.1), torch.ones(COUNT), U[3], U[4])
    hits = (erased != IMAGES).any(1).float().mean(0)
    assert hits.min() > 0


def targets(count: int = COUNT) -> torch.Tensor:
    return mix.one_hot(torch.arange(count) % 5, 5)


def test_mixup_is_linear_in_image_and_target():
    share_N, none = U[0], torch.zeros(COUNT) > 0
    images, targets_NK = mix.mixup_or_cutmix(IMAGES, targets(), share_N, none, U[1], U[2])
    for n in (0, 1, 250):
        torch.testing.assert_close(images[n], share_N[n] * IMAGES[n] + (1 - share_N[n]) * IMAGES[n - 1])
        torch.testing.assert_close(targets_NK[n], share_N[n] * targets()[n] + (1 - share_N[n]) * targets()[n - 1])


def test_cutmix_targets_count_pixels():
    share_N = U[0]
    images, targets_NK = mix.mixup_or_cutmix(IMAGES, targets(), share_N, torch.ones(COUNT) > 0, U[1], U[2])
    mine = (images == IMAGES).all(1)
    assert ((images == IMAGES.roll(1, 0)).all(1) | mine).all()
    own_N = mine.float().mean((1, 2))
    torch.testing.assert_close(targets_NK, own_N[:, None] * targets() + (1 - own_N[:, None]) * targets().roll(1, 0))
    assert (own_N > share_N - 0.1).all()  # the box is clipped at the edges, never larger than drawn
    assert own_N.mean() > share_N.mean()


def test_share_one_or_a_single_image_mixes_nothing():
    images, targets_NK = mix.mixup_or_cutmix(IMAGES, targets(), torch.ones(COUNT), U[1] < 0.5, U[1], U[2])
    assert torch.equal(images, IMAGES)
    assert torch.equal(targets_NK, targets())
    images, targets_NK = mix.mixup_or_cutmix(IMAGES[:1], targets(1), U[0, :1], U[1, :1] < 0, U[1, :1], U[2, :1])
    torch.testing.assert_close(images, IMAGES[:1])
    torch.testing.assert_close(targets_NK, targets(1))
