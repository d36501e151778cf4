"""Stochastic depth: torchvision's, timm's, and none."""

import pytest

from classifier import models
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError


def rates_of(name: str, rate: float | None) -> list[float]:
    model = models.build(ModelConfig(name=name, drop_path=rate), classes=4, channels=3, size=32)
    modules = [module for module in model.modules() if type(module).__name__ in ("StochasticDepth", "DropPath")]
    return [getattr(module, "p", None) or getattr(module, "drop_prob", 0.0) for module in modules]


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "timm/resnet18", "timm/test_vit"])
def test_the_rate_grows_with_depth_to_the_given_one(name):
    rates = rates_of(name, 0.3)
    assert rates == sorted(rates)
    assert max(rates) == pytest.approx(0.3)
    assert not any(rates_of(name, 0.0))


def test_unset_keeps_the_models_own():
    assert max(rates_of("convnext_tiny", None)) == pytest.approx(0.1)
    assert rates_of("timm/resnet18", None) == []


@pytest.mark.parametrize("name", ["resnet18", "resnet9_16", "vit_b_32", "timm/vgg11"])
def test_a_model_without_it_is_refused(name):
    with pytest.raises(ModelError, match=rf"model\.drop_path 0\.1: {name} has no stochastic depth: leave it out"):
        rates_of(name, 0.1)
    assert rates_of(name, 0.0) == []
