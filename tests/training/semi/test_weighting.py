"""The weights of unlabelled images, by the formulas of the papers."""

import math

import pytest
import torch

from classifier.training.semi.weighting import METHODS, FreeMatch, SoftMatch, decay_at

CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.4, 0.5, 0.1], [0.34, 0.33, 0.33]])


def test_softmatch_is_a_truncated_gaussian_of_aligned_confidence():
    method, step = SoftMatch(3, CPU), 5000
    found_N = method.weigh(PROBABILITIES, step)
    share = 1 - 0.999
    marginals_K = (1 - share) / 3 + share * PROBABILITIES.mean(0)
    aligned_NK = PROBABILITIES / 3 / marginals_K
    best_N = (aligned_NK / aligned_NK.sum(1, keepdim=True)).max(1).values
    mean = (1 - share) / 3 + share * best_N.mean()
    variance = (1 - share) * 1 + share * best_N.var()
    gaussian_N = torch.exp(-((best_N - mean) ** 2) / (2 * variance / 4))
    expected_N = torch.where(best_N < mean, gaussian_N, torch.ones(4))
    torch.testing.assert_close(found_N, expected_N)


def test_softmatch_labels_images_in_the_shares_of_the_labels():
    shares_K = torch.tensor([0.6, 0.2, 0.2])
    method, generator = SoftMatch(3, CPU, shares_K), torch.Generator().manual_seed(0)
    logits_NK = torch.randn(4000, 3, generator=generator) + torch.tensor([0.0, 0.0, 1.0])  # one class takes most
    for step in range(100):
        method.weigh(logits_NK.softmax(1), step)
    aligned_NK = method.align(logits_NK.softmax(1))
    torch.testing.assert_close(aligned_NK.sum(0) / aligned_NK.sum(), shares_K, atol=1e-3, rtol=0)
    before_K, after_K = (one.argmax(1).bincount(minlength=3) / 4000 for one in (logits_NK, aligned_NK))
    assert float(before_K[2]) > 0.45
    assert float(after_K[0]) > 0.6


def test_freematch_labels_images_as_they_are_answered():
    assert torch.equal(FreeMatch(3, CPU).align(PROBABILITIES), PROBABILITIES)


def test_softmatch_counts_the_unsure_less():
    method, rows = SoftMatch(3, CPU), torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.25, 0.25], [0.34, 0.33, 0.33]])
    balanced_NK = torch.cat([rows.roll(k, 1) for k in range(3)])  # each class is as frequent as the others
    weights_N = [method.weigh(balanced_NK, step) for step in range(200)][-1]
    assert weights_N[0] == 1
    assert weights_N[2] < weights_N[1] < 1


def test_softmatch_counts_an_answer_of_a_frequent_class_less():
    method, rows = SoftMatch(2, CPU), torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.2, 0.8]])
    weights_N = [method.weigh(rows, step) for step in range(200)][-1]
    assert weights_N[0] < weights_N[3] == 1


def test_freematch_has_a_threshold_for_each_class():
    method, step = FreeMatch(3, CPU), 5000
    method.threshold.fill_(0.6)
    method.means_K.copy_(torch.tensor([0.6, 0.3, 0.1]))
    found_N = method.weigh(PROBABILITIES, step)
    threshold = 0.999 * 0.6 + 0.001 * PROBABILITIES.max(1).values.mean()
    means_K = 0.999 * torch.tensor([0.6, 0.3, 0.1]) + 0.001 * PROBABILITIES.mean(0)
    thresholds_K = threshold * means_K / means_K.max()
    labels_N = PROBABILITIES.argmax(1)
    torch.testing.assert_close(found_N, (PROBABILITIES.max(1).values >= thresholds_K[labels_N]).float())
    assert found_N.tolist() == [1, 0, 1, 0]  # of the rarer class less is asked


def test_fairness_is_a_negative_cross_entropy():
    method = FreeMatch(2, CPU)
    method.means_K.copy_(torch.tensor([0.6, 0.4]))
    method.histogram_K.copy_(torch.tensor([0.75, 0.25]))
    logits_NK = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    expected_K = torch.tensor([0.6 / 0.75, 0.4 / 0.25])
    own_K = logits_NK.softmax(1).mean(0) / torch.tensor([2 / 3, 1 / 3])
    loss = ((expected_K / expected_K.sum()) * (own_K / own_K.sum()).log()).sum()
    torch.testing.assert_close(method.penalize(logits_NK), 0.01 * loss)
    assert method.penalize(logits_NK[:0]) is None


def test_the_decay_rises():
    assert decay_at(0) == pytest.approx(0.1)
    assert decay_at(10**6) == 0.999


@pytest.mark.parametrize("name", METHODS)
def test_statistics_come_back(name):
    method, other = METHODS[name](3, CPU), METHODS[name](3, CPU)
    for step in range(3):
        method.weigh(PROBABILITIES, step)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.weigh(PROBABILITIES, 3), other.weigh(PROBABILITIES, 3))
    assert all(math.isfinite(value.sum()) for value in method.state_dict().values())
