"""The project's own networks: every size, greyscale and colour, every norm; what their docstrings promise."""

import pytest
import torch
from torch import nn

from classifier.config.sections import ModelConfig
from classifier.models import MODELS, build, count_parameters, head_parameter_names


def make(name: str, *, classes: int = 10, channels: int = 3, size: int = 32, **settings) -> nn.Module:
    torch.manual_seed(0)
    return build(ModelConfig(name=name, **settings), classes=classes, channels=channels, size=size)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (8, 3), (28, 1), (28, 3), (96, 1), (96, 3), (4, 3), (31, 1), (224, 3)]
)
def test_every_size_gives_logits_and_gradients_for_all_weights(name, size, channels):
    model = make(name, classes=5, channels=channels, size=size)
    nn.init.normal_(model.get_parameter("head.weight"))  # starts at zero, which would pass no gradient back
    logits_NK = model(torch.randn(2, channels, size, size))
    assert logits_NK.shape == (2, 5)
    logits_NK.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if n.endswith("weight")
    )


@pytest.mark.parametrize("name", MODELS)
def test_batch_of_one_image_trains_with_batch_norm(name):
    assert make(name, size=8)(torch.randn(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_images_are_independent(name, norm):
    model = make(name, size=28, norm=norm)
    nn.init.normal_(model.get_parameter("head.weight"))
    images_NCHW = torch.randn(3, 3, 28, 28)
    together_NK = model(images_NCHW)
    alone_NK = torch.cat([model(image) for image in images_NCHW.split(1)])
    torch.testing.assert_close(together_NK, alone_NK, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_dropout_acts_only_in_training(name):
    model = make(name, size=8, dropout=0.5, norm="group")
    nn.init.normal_(model.get_parameter("head.weight"))
    images_NCHW = torch.randn(2, 3, 8, 8)
    assert not torch.equal(model(images_NCHW), model(images_NCHW))
    model.eval()
    assert torch.equal(model(images_NCHW), model(images_NCHW))
    assert model.state_dict().keys() == make(name, size=8, norm="group").state_dict().keys()


@pytest.mark.parametrize("name", MODELS)
def test_head_starts_at_zero(name):
    model = make(name)
    assert head_parameter_names(model) == {"head.weight", "head.bias"}
    assert model(torch.randn(2, 3, 32, 32)).abs().max() == 0


def test_widths_and_seeds():
    counts = [count_parameters(make(name)) for name in ("resnet9_16", "resnet9_32", "resnet9_64")]
    assert counts == sorted(counts)
    assert counts[2] == sum(p.numel() for p in make("resnet9_64").parameters()) > 6_000_000
    one, two = (make("cnn").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_deep_network_without_norm_learns():
    """Residual blocks start as the identity; a few steps lower the loss."""
    model = make("resnet9_16", size=16, norm="none", classes=2)
    images_NCHW, labels_N = torch.randn(16, 3, 16, 16), torch.arange(16) % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images_NCHW), labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
