"""Which layer is the head, in torchvision's, timm's and own models; dropout before it."""

import pickle

import pytest
import torch
from torch import nn

from classifier.config.sections import ModelConfig
from classifier.models import build, head_parameter_names
from classifier.models.head import DropoutLinear, set_head_dropout


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("densenet121", "classifier"),
        ("mobilenet_v3_small", "classifier.3"),
        ("squeezenet1_1", "classifier.1"),
        ("vit_b_32", "heads.head"),
        ("swin_t", "head"),
        ("convnext_tiny", "classifier.2"),
        ("efficientnet_b0", "classifier.1"),
        ("regnet_y_400mf", "fc"),
        ("shufflenet_v2_x0_5", "fc"),
        ("timm/resnet10t", "fc"),
        ("timm/tf_efficientnet_lite0", "classifier"),
        ("timm/deit_tiny_patch16_224", "head"),
    ],
)
def test_head_is_the_layer_of_the_classes(name, head):
    model = build(ModelConfig(name=name), classes=4, channels=3, size=64)
    assert head_parameter_names(model) == {f"{head}.weight", f"{head}.bias"}


def test_head_without_bias():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, bias=False))
    assert head_parameter_names(model) == {"1.weight"}


def test_head_dropout_keeps_names_weights_and_the_expectation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 400), nn.Linear(400, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    set_head_dropout(model, 0.5)
    assert isinstance(model[1], DropoutLinear)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    x_ND = torch.ones(2000, 4)
    dropped = model(x_ND).mean(0)
    torch.testing.assert_close(dropped, pickle.loads(pickle.dumps(model.eval()))(x_ND[:1])[0], rtol=0.1, atol=0.03)  # noqa: S301
