"""Distillation: the loss by its formula, and a teacher of several models."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classifier.inference.scorer import Scorer
from classifier.training import losses
from classifier.training.distillation import DistillationLoss, TaughtTargets, Teacher
from classifier.training.int8_forward import forward_in_int8, round_inputs, round_weights

SCORER = Scorer(class_names=("a", "b", "c"), size=4, mean=(0.5,), std=(0.25,), device=torch.device("cpu"))
PLAIN = losses.Loss(smoothing=0.0, gamma=0.0, weights_K=None)


def test_the_loss_is_the_divergence_by_its_formula():
    torch.manual_seed(0)
    logits_NK, teacher_NK = torch.randn(5, 3), (torch.randn(5, 3) / 2).log_softmax(1)
    labels_N = torch.tensor([0, 1, 2, 0, 1])
    divergence_N = (teacher_NK.exp() * (teacher_NK - (logits_NK / 2).log_softmax(1))).sum(1)
    expected_N = 0.7 * 4 * divergence_N + 0.3 * F.cross_entropy(logits_NK, labels_N, reduction="none")
    found_N = DistillationLoss(PLAIN, 0.7, 2.0)(logits_NK, TaughtTargets(labels_N, teacher_NK))
    torch.testing.assert_close(found_N, expected_N)


def test_a_student_that_agrees_has_no_loss():
    logits_NK = torch.randn(4, 3)
    targets = TaughtTargets(torch.zeros(4, dtype=torch.int64), (logits_NK / 2).log_softmax(1))
    loss = DistillationLoss(PLAIN, 1.0, 2.0)
    torch.testing.assert_close(loss(logits_NK, targets), torch.zeros(4), atol=1e-6, rtol=0)


class Constant(nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images_NCHW), -1)


@pytest.mark.parametrize("size", [4, 8])
def test_the_probabilities_of_several_teachers_are_averaged(size):
    first, second = Constant(0.0, 1.0, 2.0), Constant(3.0, 0.0, 0.0)
    images_NCHW = torch.zeros(2, 1, size, size, dtype=torch.uint8)
    found_NK = Teacher([(first, SCORER), (second, SCORER)]).predict(images_NCHW, 2.0).exp()
    expected_K = ((first.logits / 2).softmax(0) + (second.logits / 2).softmax(0)) / 2
    torch.testing.assert_close(found_NK, expected_K.detach().expand(2, -1))


def test_int8_rounds_forward_and_passes_gradients():
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    rounded = round_weights(weight)
    assert all(len(channel.unique()) <= 255 for channel in rounded)
    assert (rounded - weight).abs().max() < weight.abs().max() / 127
    rounded.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))
    inputs = torch.randn(2, 50)
    assert len(round_inputs(inputs).unique()) <= 256
    assert (round_inputs(inputs) - inputs).abs().max() <= (inputs.max() - inputs.min()) / 255


def test_a_network_in_int8_is_near_to_itself_and_unchanged():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    before, images_NCHW = {k: v.clone() for k, v in network.state_dict().items()}, torch.randn(2, 1, 4, 4)
    outputs_NK, expected_NK = forward_in_int8(network, images_NCHW), network(images_NCHW)
    assert not torch.equal(outputs_NK, expected_NK)
    assert (outputs_NK - expected_NK).abs().max() < 0.1
    outputs_NK.sum().backward()
    assert network[0].weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
