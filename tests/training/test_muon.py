import pytest
import torch

from classifier.config.sections import OptimizerConfig
from classifier.training.muon import SGD_LR_FACTOR, Muon, orthogonalize
from classifier.training.optimizers import build


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 4, 3, 3), (5, 5)])
def test_orthogonalized_update_has_singular_values_near_one(shape, dtype):
    update = orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dtype)
    matrix = update.flatten(1)
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    values = torch.linalg.svdvals(matrix) / scale
    assert update.shape == shape
    assert update.dtype == torch.float32
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_orthogonalized_update_is_close_to_the_polar_factor():
    matrix = torch.randn(12, 20, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.cosine_similarity(orthogonalize(matrix).flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_equals_torchs_on_matrices():
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    mine, theirs = (torch.nn.Parameter(weight.clone()) for _ in range(2))
    group = {"params": [mine], "momentum": 0.95, "weight_decay": 0.1, "orthogonal": True}
    optimizers = [Muon([group], lr=0.02), torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1)]
    for step in range(5):
        gradient = torch.randn(6, 10, generator=torch.Generator().manual_seed(step))
        for parameter, optimizer in zip((mine, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(mine, theirs, rtol=0.02, atol=2e-3)


def test_other_parameters_take_nesterov_sgd_steps():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    config = OptimizerConfig(name="muon", lr=0.01, momentum=0.9, weight_decay=0.0)
    optimizer = build(config, net, head_names=frozenset({"3.weight", "3.bias"}))
    hidden = [p for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]]
    assert [p.shape for p in hidden] == [(4, 4, 3, 3)]
    first = next(net.parameters())
    twin = torch.nn.Parameter(first.detach().clone())
    sgd = torch.optim.SGD([twin], lr=0.01 * SGD_LR_FACTOR, momentum=0.9, nesterov=True)
    for step in range(3):
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        twin.grad = torch.full_like(twin, 0.1 * (step + 1))
        optimizer.step()
        sgd.step()
    torch.testing.assert_close(first, twin)
