"""Optimizers that do not import torch's compiler, which takes a second of each start.

torch's own import it at their first use, to keep it out of their methods where a compiled graph contains an optimizer's
step. Here none does: with train.compile the network alone is compiled.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class EagerOptimizer(Optimizer):
    """To inherit from before an optimizer of torch: the same methods, without what guards them from the compiler."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


def _step(kind: type[Optimizer]) -> Callable[..., Any]:
    return torch.no_grad()(inspect.unwrap(kind.step))


class SGD(EagerOptimizer, torch.optim.SGD):
    step = _step(torch.optim.SGD)


class Adam(EagerOptimizer, torch.optim.Adam):
    step = _step(torch.optim.Adam)


class AdamW(EagerOptimizer, torch.optim.AdamW):
    step = _step(torch.optim.AdamW)


class LBFGS(EagerOptimizer, torch.optim.LBFGS):
    """Its step needs no unwrapping."""
