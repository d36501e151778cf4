"""Optimizers take the steps of plain torch optimizers, with the right parameter groups."""

import copy

import pytest
import timm
import torch
from timm.optim.lamb import Lamb
from torch import nn

from classifier.config.sections import OptimizerConfig
from classifier.training import optimizers


class Attending(nn.Module):
    """A model with every kind of parameter of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, 4, 8))
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.layer_scale = nn.Parameter(torch.randn(8, 1, 1))
        self.relative_position_bias_table = nn.Parameter(torch.randn(9, 2))
        self.norm = nn.LayerNorm([4, 8])
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 3)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(6, 1, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer, **wanted) -> set[str]:
    """Names of the parameters in groups with these values."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [g for g in optimizer.param_groups if all(g[k] == v for k, v in wanted.items())]
    return {names[id(p)] for group in groups for p in group["params"]}


def reference(name: str, model: nn.Module, momentum: float = 0.9) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=momentum, nesterov=momentum > 0)
    if name == "lamb":
        return Lamb(groups, lr=0.05, betas=(momentum, 0.999), max_grad_norm=None)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.05, betas=(momentum, 0.999))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_equal_the_references(name, momentum):
    mine, theirs = net(), net()
    config = OptimizerConfig(name=name, lr=0.05, momentum=momentum, weight_decay=0.01)
    mine_after = train(mine, optimizers.build(config, mine, head_names=frozenset()))
    assert all(
        torch.equal(a, b) for a, b in zip(mine_after, train(theirs, reference(name, theirs, momentum)), strict=True)
    )


def test_weight_decay_leaves_out_norms_and_biases():
    model = net()
    optimizer = optimizers.build(OptimizerConfig(weight_decay=0.01), model, head_names=frozenset())
    assert names_of(model, optimizer, weight_decay=0.01) == {"0.weight", "5.weight"}
    assert names_of(model, optimizer, weight_decay=0.0) == {"0.bias", "1.weight", "1.bias", "5.bias"}


def test_weight_decay_in_a_transformer():
    model = Attending()
    optimizer = optimizers.build(OptimizerConfig(weight_decay=0.01), model, head_names=frozenset())
    decayed = {"attention.in_proj_weight", "attention.out_proj.weight", "head.weight"}
    assert names_of(model, optimizer, weight_decay=0.01) == decayed
    assert names_of(model, optimizer) == {name for name, _ in model.named_parameters()}


def test_backbone_learns_slower():
    model = net()
    head = frozenset({"5.weight", "5.bias"})
    optimizer = optimizers.build(
        OptimizerConfig(lr=0.5, backbone_scale=0.2), model, head_names=head, is_pretrained=True
    )
    assert names_of(model, optimizer, lr=0.5) == head
    assert names_of(model, optimizer, lr=0.1) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert len(optimizer.param_groups) == 4
    optimizers.set_lr(optimizer, 2.0)
    assert names_of(model, optimizer, lr=2.0) == head
    assert names_of(model, optimizer, lr=pytest.approx(0.4)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_each_layer_learns_slower_than_the_next():
    model = timm.create_model("test_vit", num_classes=3)
    config = OptimizerConfig(lr=1.0, layer_decay=0.5, backbone_scale=0.1)
    optimizer = optimizers.build(config, model, head_names=frozenset({"head.weight", "head.bias"}), is_pretrained=True)
    blocks = len([*model.get_submodule("blocks").children()])
    assert names_of(model, optimizer, lr=1.0) == {"head.weight", "head.bias"}
    assert "blocks.0.attn.qkv.weight" in names_of(model, optimizer, lr=0.5**blocks)
    assert {"patch_embed.proj.weight", "pos_embed"} <= names_of(model, optimizer, lr=0.5 ** (blocks + 1))
    assert names_of(model, optimizer) == {name for name, _ in model.named_parameters()}


def test_layers_of_a_model_that_does_not_tell_them():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(14)))
    head = frozenset({"13.weight", "13.bias"})
    optimizer = optimizers.build(OptimizerConfig(lr=1.0, layer_decay=0.5), model, head_names=head)
    assert names_of(model, optimizer, lr=1.0) == head
    first = {f"{n}.{part}" for n in range(6) for part in ("weight", "bias")}  # of 26 parameters in layers of 12
    assert names_of(model, optimizer, lr=0.5**3) == first


def test_frozen_parameters_are_in_a_group_but_do_not_change():
    model = net()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    optimizer = optimizers.build(OptimizerConfig(), model, head_names=frozenset({"5.weight", "5.bias"}))
    train(model, optimizer)
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(model.state_dict()["5.weight"], before["5.weight"])
    model[0].requires_grad_(True)
    train(model, optimizer)
    assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_momentum_is_shifted_from_its_base(name):
    model = net()
    optimizer = optimizers.build(OptimizerConfig(name=name, momentum=0.8), model, head_names=frozenset())

    def momenta() -> set[float]:
        return {round(g["momentum"] if name == "sgd" else g["betas"][0], 6) for g in optimizer.param_groups}

    for shift, expected in ((0.05, 0.85), (0.05, 0.85), (-0.05, 0.75), (None, 0.75), (0.0, 0.8), (0.5, 0.999)):
        optimizers.set_lr(optimizer, 0.1, shift)
        assert momenta() == {expected}
    if name != "sgd":
        assert {g["betas"][1] for g in optimizer.param_groups} == {0.999}


def test_zero_momentum_stays_zero():
    optimizer = optimizers.build(OptimizerConfig(name="sgd", momentum=0.0), net(), head_names=frozenset())
    optimizers.set_lr(optimizer, 0.1, 0.05)
    assert {g["momentum"] for g in optimizer.param_groups} == {0.0}
    assert {g["nesterov"] for g in optimizer.param_groups} == {False}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_state_survives_a_checkpoint_in_any_memory_layout(name):
    config = OptimizerConfig(name=name, lr=0.05)
    straight = net().to(memory_format=torch.channels_last)
    optimizer = optimizers.build(config, straight, head_names=frozenset())
    train(straight, optimizer, steps=3)
    resumed = net().to(memory_format=torch.channels_last)
    resumed.load_state_dict(straight.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    for values in state["state"].values():
        for key, value in values.items():
            values[key] = value.contiguous()  # as safetensors would give it back
    other = optimizers.build(config, resumed, head_names=frozenset())
    optimizers.load_state(other, state)
    assert all(torch.equal(a, b) for a, b in zip(train(straight, optimizer), train(resumed, other), strict=True))
