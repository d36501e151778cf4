"""Optimizers without the compiler's import: the same weights as torch's own, bit for bit."""

import subprocess
import sys

import pytest
import torch

from classifier.runtime import eager_optimizer

OPTIONS = {"SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, "Adam": {}, "AdamW": {"weight_decay": 0.1}}


def follow(kind: type[torch.optim.Optimizer], **options: object) -> torch.Tensor:
    """Return the weights after six steps, with the optimizer replaced by one of its state after three."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.Parameter(torch.randn(5, 3, generator=generator))
    optimizer = kind([{"params": [weights]}], lr=0.1, **options)  # pyright: ignore[reportCallIssue]
    for step in range(6):
        if step == 3:
            state, optimizer = optimizer.state_dict(), kind([weights], lr=0.5, **options)  # pyright: ignore[reportCallIssue]
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        weights.grad = torch.randn(5, 3, generator=generator)
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_equal_those_of_torch(name):
    own, torchs = (follow(getattr(module, name), **OPTIONS[name]) for module in (eager_optimizer, torch.optim))
    assert torch.equal(own, torchs)


def test_a_training_step_does_not_import_the_compiler():
    code = (
        "import sys, torch\n"
        "from classifier.config.sections import OptimizerConfig\n"
        "from classifier.training import optimizers\n"
        "model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))\n"
        "for name in ('sgd', 'adam', 'adamw', 'muon'):\n"
        "    optimizer = optimizers.build(OptimizerConfig(name=name), model, head_names=frozenset({'1.weight'}))\n"
        "    model(torch.ones(4, 2)).sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "    optimizers.load_state(optimizer, optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr
