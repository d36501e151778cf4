"""classifier/augment/mix.py: what is erased, blended and pasted, and what the targets say of it."""

import pytest
import torch

from classifier.augment import mix

COUNT = 400
IMAGES = torch.rand(COUNT, 2, 10, 14, generator=torch.Generator().manual_seed(0))
BYTES = (IMAGES * 255).to(torch.uint8)
U = torch.rand(5, COUNT, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("images", [IMAGES, BYTES], ids=["float", "uint8"])
def test_erased_rectangles_hold_the_images_mean(images):
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


def test_erasing_reaches_every_place():
    erased = mix.erase(IMAGES, torch.ones(COUNT) > 0, torch.full((COUNT,), 0.1), torch.ones(COUNT), U[3], U[4])
    hits = (erased != IMAGES).any(1).float().mean(0)
    assert hits.min() > 0


def targets(count: int = COUNT) -> torch.Tensor:
    return mix.one_hot(torch.arange(count) % 5, 5)


def test_blending_is_linear_in_image_and_target():
    share_N, none = U[0], torch.zeros(COUNT) > 0
    images, targets_NK = mix.mixed(IMAGES, targets(), share_N, none, U[1], U[2])
    for n in (0, 1, 250):
        torch.testing.assert_close(images[n], share_N[n] * IMAGES[n] + (1 - share_N[n]) * IMAGES[n - 1])
        torch.testing.assert_close(targets_NK[n], share_N[n] * targets()[n] + (1 - share_N[n]) * targets()[n - 1])


def test_pasted_targets_count_pixels():
    share_N = U[0]
    images, targets_NK = mix.mixed(IMAGES, targets(), share_N, torch.ones(COUNT) > 0, U[1], U[2])
    mine = (images == IMAGES).all(1)
    assert ((images == IMAGES.roll(1, 0)).all(1) | mine).all()
    kept_N = mine.float().mean((1, 2))
    torch.testing.assert_close(targets_NK, kept_N[:, None] * targets() + (1 - kept_N[:, None]) * targets().roll(1, 0))
    assert (kept_N > share_N - 0.1).all()  # the box is cut at the edges, never larger than drawn
    assert kept_N.mean() > share_N.mean()


def test_nothing_is_mixed_where_all_is_kept_or_nobody_else_is_there():
    images, targets_NK = mix.mixed(IMAGES, targets(), torch.ones(COUNT), U[1] < 0.5, U[1], U[2])
    assert torch.equal(images, IMAGES)
    assert torch.equal(targets_NK, targets())
    images, targets_NK = mix.mixed(IMAGES[:1], targets(1), U[0, :1], U[1, :1] < 0, U[1, :1], U[2, :1])
    torch.testing.assert_close(images, IMAGES[:1])
    torch.testing.assert_close(targets_NK, targets(1))
