"""The user's own classes by import path, and timm's models by name."""

import sys

import pytest
import torch

from classifier.config import trust
from classifier.config.sections import ModelConfig
from classifier.config.trust import trust_models
from classifier.errors import ModelError
from classifier.models import build

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels=3, size=32, depth=1):
        super().__init__()
        self.given = (classes, channels, size)
        self.head = nn.Linear(channels * size * size, classes)
    def forward(self, x):
        return self.head(x.flatten(1))

class Old(Net):
    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)

class OwnTensor(Net):
    def forward(self, x):
        return super().forward(x) + torch.ones(1, device="cpu").numpy().item()

def function(*, num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

class Short(Net):
    def forward(self, x):
        return super().forward(x)[:, :1]

class Broken(Net):
    def forward(self, x):
        raise RuntimeError("out of luck")

def no_classes(size):
    return None

def no_model(classes):
    return [classes]

number = 3
"""


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_trusted", set())
    (tmp_path / "own_nets.py").write_text(NETS)
    (tmp_path / "own_broken.py").write_text("import no_such_library")
    yield tmp_path
    sys.modules.pop("own_nets", None)


def make(name: str, **settings):
    trust_models([name])
    return build(ModelConfig(name=name, **settings), classes=5, channels=3, size=16)


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("name", ["Net", "Old", "OwnTensor"])
def test_class_gets_the_arguments_it_accepts(name):
    model = make(f"own_nets:{name}")
    assert model.given == (5, 3, 16)
    assert model.training
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.usefixtures("own_modules")
def test_function_with_dropout():
    model = make("own_nets:function", dropout=0.5)
    assert model.get_submodule("2").p == 0.5


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_nets:Ned", "did you mean Net"),
        ("own_netz:Net", "own_netz cannot be imported"),
        ("own_broken:Net", "no_such_library"),
        ("own_nets:", "own_nets has no"),
        ("own_nets:number", "not a class or function, but int"),
        ("own_nets:no_classes", "a parameter named classes or num_classes"),
        ("own_nets:no_model", "returns list, not a torch.nn.Module"),
        ("own_nets:Short", r"shape \(2, 1\), not \(2, 5\)"),
        ("own_nets:Broken", "out of luck"),
    ],
)
def test_unusable_model_is_refused_in_one_line(name, message):
    with pytest.raises(ModelError, match=message) as error:
        make(name)
    assert "\n" not in str(error.value)


def test_timm_models_adapt_to_channels_and_size():
    model = build(ModelConfig(name="timm/resnet10t", dropout=0.2), classes=5, channels=1, size=32)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert model.drop_rate == 0.2
    vit = build(ModelConfig(name="timm/vit_tiny_patch16_224"), classes=5, channels=3, size=64)
    assert vit.get_parameter("pos_embed").shape[1] == 1 + 4 * 4


def test_unknown_timm_name_suggests_the_closest():
    with pytest.raises(ModelError, match="did you mean timm/efficientnet_lite0"):
        make("timm/eficientnet_lite0")


def test_missing_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install timm"):
        make("timm/resnet10t")
