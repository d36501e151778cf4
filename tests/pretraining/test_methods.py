"""Losses against their formulas, and what a teacher and a centre remember."""

import math

import pytest
import torch
from torch import nn

from classifier.pretraining import losses
from classifier.pretraining.methods import BYOL, CENTRE_MOMENTUM, DINO, METHODS, MOMENTUM, choose_method

VIEWS = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def make_model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, 2))


def test_nt_xent_is_the_mean_over_all_views():
    first_ND, second_ND = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    views = [*first_ND, *second_ND]
    expected = 0.0
    for i, view in enumerate(views):
        alike = [math.exp(float(torch.cosine_similarity(view, other, 0)) / 0.5) for other in views]
        expected -= math.log(alike[(i + 3) % 6] / (sum(alike) - alike[i])) / 6
    assert float(losses.nt_xent(first_ND, second_ND, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_regression_of_equal_views_costs_nothing_and_of_opposite_ones_four():
    ones_ND = torch.ones(2, 3)
    assert float(losses.regress_views(ones_ND, 5 * ones_ND)) == pytest.approx(0, abs=1e-6)
    assert float(losses.regress_views(ones_ND, -ones_ND)) == pytest.approx(4)


def test_prototypes_are_centred_and_sharpened():
    student_NP, teacher_NP, centre_P = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]), torch.tensor([0.0, 1.0])
    share = 1 / (1 + math.exp(-2 / 0.5))  # of logits 2 and 0
    log_shares = -math.log(1 + math.exp(-1)), -math.log(1 + math.exp(1))
    expected = -share * log_shares[0] - (1 - share) * log_shares[1]
    found = losses.match_prototypes(student_NP, teacher_NP, centre_P, 1.0, 0.5)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_reaches_the_backbone_alone_where_no_label_is(name):
    method = METHODS[name](make_model(), 4)
    method(VIEWS).backward()
    gradients = {key: one.grad for key, one in method.named_parameters()}
    head = "backbone.model.5."
    assert all(gradients[key] is not None for key in gradients if key.startswith("backbone.") and head not in key)
    assert all(gradients[key] is None for key in gradients if head in key or key.startswith("teacher."))


def test_a_teacher_is_the_moving_average_of_its_student():
    method = BYOL(make_model(), 4)
    before = [one.clone() for one in method.teacher.parameters()]
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.projector.parameters()):
            parameter += 1
    method.after_step(0.0)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - MOMENTUM))
    frozen = [one.clone() for one in method.teacher.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(old, new) for old, new in zip(frozen, method.teacher.parameters(), strict=True))


def test_a_centre_moves_towards_the_mean_of_the_teacher():
    method = DINO(make_model(), 4)
    with torch.no_grad():
        mean_P = method.teacher(VIEWS).mean(0)
    method(VIEWS)
    torch.testing.assert_close(method.centre_P, (1 - CENTRE_MOMENTUM) * mean_P)


def test_transformers_get_dino():
    assert choose_method(make_model()) == "simclr"
    assert choose_method(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) == "dino"
