"""Counter-based random numbers: classifier/runtime/counter_rng.py."""

import math

import pytest
import torch

from classifier.augment.streams import Stream
from classifier.runtime import counter_rng

POSITIONS = torch.arange(20_000)


def reference(key: int, position: int, stream: int) -> float:
    """SplitMix64 as published, in Python integers."""
    mask = (1 << 64) - 1
    z = (key + (position * 64 + stream) * 0x9E3779B97F4A7C15) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return ((z ^ (z >> 31)) >> 40) / 2**24


def test_numbers_match_splitmix64():
    key = counter_rng.key(3, 5)
    positions = torch.tensor([0, 1, 59_999, 2**40])
    u_N, v_N = counter_rng.uniforms(key, positions, 0, 47)
    assert u_N.tolist() == [reference(key, p, 0) for p in positions.tolist()]
    assert v_N.tolist() == [reference(key, p, 47) for p in positions.tolist()]
    assert u_N.dtype == torch.float32


def test_first_output_matches_the_published_one():
    # The first output of SplitMix64 with seed 1234567 is 6457827717110365317 (the generator's own test vector).
    (first,) = counter_rng.uniform(1234567, torch.tensor([0]), 1).tolist()
    assert first == (6457827717110365317 >> 40) / 2**24


def test_numbers_depend_only_on_key_position_and_stream():
    key = counter_rng.key(0, 0)
    whole = counter_rng.uniform(key, POSITIONS, Stream.FLIP)
    assert torch.equal(whole[700:900], counter_rng.uniform(key, POSITIONS[700:900], Stream.FLIP))
    assert torch.equal(whole, counter_rng.uniforms(key, POSITIONS, Stream.HUE, Stream.FLIP)[1])
    others = [counter_rng.uniform(counter_rng.key(*at), POSITIONS, Stream.FLIP) for at in ((1, 0), (0, 1))]
    others.append(counter_rng.uniform(key, POSITIONS, Stream.ROTATE))
    for other in others:
        assert abs(torch.corrcoef(torch.stack([whole, other]))[0, 1]) < 0.03


def test_keys_fit_64_bits_and_differ():
    keys = {counter_rng.key(seed, epoch) for seed in range(60) for epoch in range(60)}
    assert len(keys) == 3600
    assert all(-(2**63) <= key < 2**63 for key in {*keys, counter_rng.key(2**70, 10**9)})


def test_numbers_are_uniform():
    u_N = counter_rng.uniform(counter_rng.key(1, 2), POSITIONS, Stream.SCALE)
    assert u_N.min() >= 0
    assert u_N.max() < 1
    counts = torch.histc(u_N, 20, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, 0.1 %


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 3.0])
def test_beta_has_its_distribution(alpha):
    sample_N = counter_rng.beta(counter_rng.key(0, 1), POSITIONS, Stream.MIX_SHARE, alpha).sort().values.double()
    torch.manual_seed(0)
    reference_N = torch.distributions.Beta(alpha, alpha).sample((200_000,)).sort().values.double()
    assert sample_N[0] >= 0
    assert sample_N[-1] <= 1
    assert sample_N.mean() == pytest.approx(0.5, abs=0.015)
    assert sample_N.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.04)
    # Kolmogorov-Smirnov against torch's own sampler, at 0.1 %.
    points = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    gap = (
        (torch.searchsorted(sample_N, points) / 20_000 - torch.searchsorted(reference_N, points) / 200_000).abs().max()
    )
    assert gap < 1.95 * math.sqrt(1 / 20_000 + 1 / 200_000)


def test_lerp_and_log_lerp_stay_in_their_range():
    u_N = counter_rng.uniform(counter_rng.key(0, 1), POSITIONS, Stream.CROP_ASPECT)
    aspect_N = counter_rng.log_lerp(u_N, 3 / 4, 4 / 3)
    assert aspect_N.min() >= 0.7499
    assert aspect_N.max() <= 1.3334
    assert aspect_N.log().mean() == pytest.approx(0, abs=0.005)
    assert counter_rng.lerp(u_N, -2, 4).mean() == pytest.approx(1, abs=0.05)


def test_permutation_is_a_function_of_seed_and_epoch() -> None:
    permutation = counter_rng.permutation
    assert torch.equal(permutation(1000, 3, 5), permutation(1000, 3, 5))
    others = [permutation(1000, 3, 6), permutation(1000, 4, 5), permutation(1000, 5, 3), permutation(1000, 0, 0)]
    for other in others:
        assert (other == permutation(1000, 3, 5)).float().mean() < 0.02
    # The same on every machine and version, or a resumed run would see other images.
    assert permutation(10, 0, 0).tolist() == [2, 6, 5, 3, 0, 4, 7, 1, 8, 9]
    assert permutation(10, 2**64 + 1, 2).tolist() == permutation(10, 1, 2).tolist()


def test_permutation_is_unbiased() -> None:
    """Over many epochs each image is in the first half of an epoch as often as in the second."""
    early = torch.stack([counter_rng.permutation(50, 1, epoch) for epoch in range(400)]).argsort(1) < 25
    fractions = early.float().mean(0)
    assert fractions.min() > 0.4
    assert fractions.max() < 0.6
    neighbours = sum(int((counter_rng.permutation(50, 1, epoch).diff() == 1).sum()) for epoch in range(400))
    assert neighbours == pytest.approx(400 * 49 / 50, rel=0.2)
