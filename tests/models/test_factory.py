"""Models by name, and the messages about those that cannot be built."""

import subprocess
import sys

import pytest
import torch

from classifier import models
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import factory


def build(name: str, size: int = 32, channels: int = 3, classes: int = 4, **settings):
    return models.build(ModelConfig(name=name, **settings), classes=classes, channels=channels, size=size)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("resnet19", "resnet1"), ("resnet9_33", "resnet9_3"), ("efficientnet_b00", "efficientnet_b"), ("qqqq", "cnn")],
)
def test_unknown_name_suggests_the_closest(name, suggestion):
    with pytest.raises(ModelError, match=suggestion) as error:
        build(name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_too_small_image_size_suggests_one_that_works():
    with pytest.raises(ModelError, match=r"data\.size to \d+") as error:
        build("inception_v3", size=8)
    size = int(str(error.value).partition("data.size to ")[2].partition(",")[0])
    build("inception_v3", size=size)


def test_a_model_for_one_size_of_images_is_told():
    vit = "timm/vit_tiny_patch16_224"
    for name, sizes, is_flexible in (("resnet18", (32, 48), True), (vit, (32,), False), ("cnn", (32,), False)):
        config = ModelConfig(name=name)
        model = models.build(config, classes=4, channels=3, size=64)
        if is_flexible:
            factory.check_sizes(model, config, channels=3, sizes=sizes)
            continue
        with pytest.raises(ModelError, match=rf"{name} does not accept images of 32 pixels .* set schedule\.size_from"):
            factory.check_sizes(model, config, channels=3, sizes=sizes)


def test_names_and_public_functions():
    assert set(models.names()) == {*models.MODELS, *models.ZOO}
    assert len(models.names()) == len(set(models.names()))
    for name in ("build", "set_frozen", "head_parameter_names", "count_parameters"):
        assert callable(getattr(models, name))
    with pytest.raises(AttributeError, match="no_such"):
        _ = models.no_such  # pyright: ignore[reportAttributeAccessIssue]


def test_listing_names_does_not_import_torch():
    code = "import sys, classifier.models as m; m.names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_count_parameters():
    assert models.count_parameters(torch.nn.Linear(3, 2)) == 8
