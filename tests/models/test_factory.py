"""Models by name, and the sentences about those that cannot be."""

import subprocess
import sys

import pytest
import torch

from classifier import models
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError


def build(name: str, size: int = 32, channels: int = 3, classes: int = 4, **settings):
    return models.build(ModelConfig(name=name, **settings), classes=classes, channels=channels, size=size)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet19", "resnet1"), ("resnet9_33", "resnet9_3"), ("efficientnet_b00", "efficientnet_b"), ("qqqq", "cnn")],
)
def test_unknown_names_are_refused_with_the_nearest(name, near):
    with pytest.raises(ModelError, match=near) as refusal:
        build(name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_size_that_is_too_small_is_refused_with_one_that_does():
    with pytest.raises(ModelError, match=r"data\.size to \d+") as refusal:
        build("inception_v3", size=8)
    size = int(str(refusal.value).partition("data.size to ")[2].partition(",")[0])
    build("inception_v3", size=size)


def test_names_and_public_functions():
    assert set(models.names()) == {*models.MODELS, *models.ZOO}
    assert len(models.names()) == len(set(models.names()))
    assert all(callable(getattr(models, name)) for name in ("build", "freeze", "head_names", "parameter_count"))
    with pytest.raises(AttributeError, match="no_such"):
        _ = models.no_such  # pyright: ignore[reportAttributeAccessIssue]


def test_listing_the_names_imports_no_torch():
    code = "import sys, classifier.models as m; m.names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_parameters_are_counted():
    assert models.parameter_count(torch.nn.Linear(3, 2)) == 8
