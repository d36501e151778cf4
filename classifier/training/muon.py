"""Muon: momentum with orthogonalized updates, matrix by matrix (K. Jordan et al., "Muon", 2024).

In short trainings it needs fewer epochs than SGD or AdamW. All parameters but the matrices of hidden layers (biases,
norms, the first convolution, the head) take SGD steps with Nesterov momentum, as in K. Jordan's airbench for CIFAR-10.
"""

# torch's own optimizers use the _foreach functions, which have no public names.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from classifier.runtime.eager_optimizer import EagerOptimizer

# SGD's learning rate as a multiple of Muon's, whose updates have unit size instead of the gradient's.
SGD_LR_FACTOR = 20 / 3
# Quintic Newton-Schulz iteration: the paper's coefficients, for the steepest slope at zero, and its count.
_A, _B, _C, _ITERATIONS = 3.4445, -4.7750, 2.0315, 5


class Muon(EagerOptimizer):
    """Parameter groups with `orthogonal` true take Muon steps, the others SGD steps.

    Each group also has lr, momentum and weight_decay (decoupled for Muon, coupled for SGD). dtype: of the matrix
    products that orthogonalize; bfloat16 is precise enough, but slow on processors that emulate it.
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
                (self._muon_step if group["orthogonal"] else self._sgd_step)(group, parameters)

    def _muon_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Take a Muon step. Foreach calls on lists of tensors, here and below: few GPU launches instead of hundreds."""
        lr, momentum, gradients = group["lr"], group["momentum"], [p.grad for p in parameters]
        buffers = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, [orthogonalize(update, self.dtype) for update in updates], alpha=-lr)

    def _sgd_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Take an SGD step with Nesterov momentum."""
        momentum, gradients = group["momentum"], [p.grad for p in parameters]
        buffers = [self.state[p]["momentum"] for p in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        updates = torch._foreach_add(gradients, buffers, alpha=momentum)
        torch._foreach_add_(parameters, updates, alpha=-group["lr"] * SGD_LR_FACTOR)


def orthogonalize(update: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrix to an update of shape (out, ...), times sqrt(max(1, out/in)).

    Its singular values are between about 0.7 and 1.2, which is close enough. The paper computes in bfloat16.
    """
    matrix = update.flatten(1).to(dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):  # x becomes A x + (B G + C G G) x with G = x x', in three calls
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    x = x.T if is_tall else x
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return (x * scale).reshape(update.shape).to(update.dtype)
