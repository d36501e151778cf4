"""Muon: momentum whose direction is made orthogonal, matrix by matrix (K. Jordan et al., "Muon", 2024).

It needs fewer epochs than SGD or AdamW where epochs are few. What is no matrix of a hidden layer (biases, norms, the
first convolution, the head) takes steps of SGD with Nesterov momentum, as in K. Jordan's airbench for CIFAR-10.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# SGD's rate as a multiple of Muon's: a step of Muon has unit size in every direction, a step of SGD the gradient's.
SGD_SCALE = 20 / 3
# Quintic Newton-Schulz iteration: coefficients and count of the paper, for the steepest slope at zero.
_A, _B, _C, _ROUNDS = 3.4445, -4.7750, 2.0315, 5


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` true take Muon's steps, the others SGD's.

    Each group also has lr, momentum and weight_decay (decoupled for Muon, coupled for SGD). dtype: of the products
    that make a matrix orthogonal; bfloat16 is enough, and slow where a processor emulates it.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(groups, {"lr": lr, "momentum": 0.95, "weight_decay": 0.0, "orthogonal": False})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if decay and not group["orthogonal"]:
                    gradient = gradient.add(parameter, alpha=decay)
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                if group["orthogonal"]:
                    buffer = state["momentum"].lerp_(gradient, 1 - momentum)
                    parameter.mul_(1 - lr * decay)
                    update = orthogonal(gradient.lerp(buffer, momentum), self.dtype)
                    parameter.add_(update, alpha=-lr)
                else:
                    buffer = state["momentum"].mul_(momentum).add_(gradient)
                    parameter.add_(gradient.add(buffer, alpha=momentum), alpha=-lr * SGD_SCALE)


def orthogonal(update: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest (semi-)orthogonal matrix to a weight's update of shape (out, ...), about, times sqrt(max(1, out/in)).

    Singular values come out between about 0.7 and 1.2: exactness is not needed. The paper computes in bfloat16.
    """
    matrix = update.flatten(1).to(dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    x = x.T if is_tall else x
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return (x * scale).reshape(update.shape).to(update.dtype)
