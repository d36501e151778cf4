"""Muon: momentum whose direction is made orthogonal, matrix by matrix (K. Jordan et al., "Muon", 2024).

It needs fewer epochs than SGD or AdamW where epochs are few. What is no matrix of a hidden layer (biases, norms, the
first convolution, the head) takes steps of SGD with Nesterov momentum, as in K. Jordan's airbench for CIFAR-10.
"""

# torch's optimizers use these lists of tensors, and torch gives them no public names.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

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
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                for parameter in parameters:
                    if not self.state[parameter]:
                        self.state[parameter]["momentum"] = torch.zeros_like(parameter)
                (self._turn if group["orthogonal"] else self._descend)(group, parameters)

    def _turn(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Muon's step. Lists of tensors at once, here and below: a GPU is given a few calls instead of hundreds."""
        lr, momentum, gradients = group["lr"], group["momentum"], [p.grad for p in parameters]
        buffers = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, [orthogonal(update, self.dtype) for update in updates], alpha=-lr)

    def _descend(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """SGD's, with Nesterov momentum."""
        momentum, gradients = group["momentum"], [p.grad for p in parameters]
        buffers = [self.state[p]["momentum"] for p in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        updates = torch._foreach_add(gradients, buffers, alpha=momentum)
        torch._foreach_add_(parameters, updates, alpha=-group["lr"] * SGD_SCALE)


def orthogonal(update: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest (semi-)orthogonal matrix to a weight's update of shape (out, ...), about, times sqrt(max(1, out/in)).

    Singular values come out between about 0.7 and 1.2: exactness is not needed. The paper computes in bfloat16.
    """
    matrix = update.flatten(1).to(dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):  # x becomes A x + (B G + C G G) x with G = x x', in three calls
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    x = x.T if is_tall else x
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return (x * scale).reshape(update.shape).to(update.dtype)
