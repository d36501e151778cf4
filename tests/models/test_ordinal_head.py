"""The head of ordered grades: a distribution for any parameters, in networks of all kinds, rebuilt as it was."""

import pytest
import torch
from torch import nn

from classifier.config import trust
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import build, head_modules, head_parameter_names
from classifier.models.ordinal_head import OrdinalHead, find_thresholds, log_probabilities

NETS = """
import torch
from torch import nn

class Clipped(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)
    def forward(self, images):
        return torch.relu(self.head(images.mean((2, 3))))
"""


def make(name: str = "cnn", *, classes: int = 5, channels: int = 3, size: int = 32, **settings) -> nn.Module:
    config = ModelConfig(name=name, **settings)
    return build(config, classes=classes, channels=channels, size=size, task="ordinal")


@pytest.mark.parametrize("grades", [2, 3, 7])
def test_probabilities_are_those_of_the_proportional_odds_model(grades: int):
    generator = torch.Generator().manual_seed(0)
    values_N1 = 4 * torch.randn(50, 1, generator=generator, dtype=torch.float64)
    gaps = torch.randn(grades - 2, generator=generator, dtype=torch.float64)
    up_to_NJ = torch.sigmoid(find_thresholds(gaps)[0] - values_N1)
    ends_N1 = torch.zeros_like(values_N1)
    expected_NK = torch.cat([up_to_NJ, ends_N1 + 1], 1) - torch.cat([ends_N1, up_to_NJ], 1)
    logs_NK = log_probabilities(values_N1, gaps)
    torch.testing.assert_close(logs_NK.exp(), expected_NK)
    torch.testing.assert_close(logs_NK, logs_NK.log_softmax(1))


def test_far_values_have_finite_logarithms_and_gradients():
    values_N1 = torch.tensor([[-500.0], [0.0], [500.0]], requires_grad=True)
    gaps = torch.tensor([-1e6, 0.0, 30.0], requires_grad=True)
    logs_NK = log_probabilities(values_N1, gaps)
    logs_NK.sum().backward()
    assert logs_NK.isfinite().all()
    assert values_N1.grad is not None
    assert gaps.grad is not None
    assert values_N1.grad.isfinite().all()
    assert gaps.grad.isfinite().all()
    assert logs_NK[::2].argmax(1).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("cnn", 32, {}),
        ("plain7_32", 32, {"dropout": 0.3}),
        ("resnet18", 32, {"dropout": 0.3}),
        ("googlenet", 64, {}),  # with auxiliary heads
        ("vit_b_32", 64, {}),
        ("timm/tf_efficientnet_lite0", 64, {"dropout": 0.3}),
    ],
)
def test_networks_of_all_kinds_give_a_distribution_uniform_at_first(name: str, size: int, settings):
    model = make(name, size=size, **settings)
    heads = head_modules(model)
    assert all(isinstance(head, OrdinalHead) for head in heads.values())
    parts = ("weight", "bias", "gaps")
    assert {f"{head}.{part}" for head in heads for part in parts} == head_parameter_names(model)
    outputs = model(torch.rand(2, 3, size, size))
    for logs_NK in outputs if isinstance(outputs, tuple) else (outputs,):
        torch.testing.assert_close(logs_NK, torch.full((2, 5), 0.2).log())
    own_dropout = 0.3 if name in ("plain7_32", "resnet18") else 0.0
    assert next(iter(heads.values())).p == own_dropout


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm/deit_tiny_distilled_patch16_224"])
def test_networks_without_a_linear_head_of_their_own_are_refused(name: str):
    with pytest.raises(ModelError, match=f"model.name {name}: .*choose another model"):
        make(name, size=224)


def test_a_network_that_changes_what_its_head_says_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "_trusted", set())
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "clipped_net.py").write_text(NETS)
    trust.trust_models(("clipped_net:Clipped",))
    with pytest.raises(ModelError, match="does not give its outputs"):
        make("clipped_net:Clipped")


def test_weights_for_the_same_grades_are_kept_and_others_start_anew(tmp_path, caplog):
    from safetensors.torch import save_file

    def transfer(task, names: str) -> dict[str, torch.Tensor]:
        config = ModelConfig(name="cnn", weights=str(tmp_path / "w.safetensors"))
        model = build(config, classes=4, channels=3, size=32, class_names=names, task=task)
        return {name: value for name, value in model.state_dict().items() if name.startswith("head.")}

    model = make(classes=4)
    for parameter in head_modules(model)["head"].parameters():
        nn.init.normal_(parameter)
    weights = model.state_dict()
    save_file(weights, tmp_path / "w.safetensors", {"class_names": '["0", "1", "2", "3"]'})
    assert all(torch.equal(value, weights[name]) for name, value in transfer("ordinal", "0123").items())
    assert not any(value.any() for value in transfer("ordinal", "3210").values())
    assert "grades in another order" in caplog.text
    assert not transfer("multiclass", "0123")["head.weight"].any()
