"""Pictures changed a little, on purpose, so that a model errs: how far its answers hang on what nobody sees.

Untargeted, each value moved by at most epsilon (the infinity norm), by one who knows the model. They take a placed
model and its Scorer; images are uint8, attacks are float32 in [0, 1] on the scorer's device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.inference.scorer import Scorer


def fgsm(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor, epsilon: float) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step."""
    plain_NCHW = _plain(scorer, images_NCHW)
    slope_NCHW = _slope(model, scorer, plain_NCHW, labels_N)
    return (plain_NCHW + epsilon * slope_NCHW.sign()).clamp(0, 1)


def pgd(
    model: nn.Module,
    scorer: Scorer,
    images_NCHW: Tensor,
    labels_N: Tensor,
    epsilon: float,
    *,
    steps: int = 10,
    step: float | None = None,
    seed: int | None = 0,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018): steps of epsilon / 4, from a seeded random place."""
    plain_NCHW = _plain(scorer, images_NCHW)
    moved_NCHW = plain_NCHW
    if seed is not None:
        noise_NCHW = torch.rand(plain_NCHW.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        moved_NCHW = (plain_NCHW + epsilon * noise_NCHW.to(plain_NCHW.device)).clamp(0, 1)
    for _ in range(steps):
        slope_NCHW = _slope(model, scorer, moved_NCHW, labels_N)
        moved_NCHW = moved_NCHW + (epsilon / 4 if step is None else step) * slope_NCHW.sign()
        moved_NCHW = (plain_NCHW + (moved_NCHW - plain_NCHW).clamp(-epsilon, epsilon)).clamp(0, 1)
    return moved_NCHW


def right(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    """right_N, bool on the CPU: whether float images are taken for what they are. One view, as the attacker sees it."""
    model.eval()
    with torch.inference_mode():
        return (scorer.forward(model, images_NCHW).argmax(1).cpu() == labels_N.cpu()).clone()


def _plain(scorer: Scorer, images_NCHW: Tensor) -> Tensor:
    return images_NCHW.to(scorer.device).float() / 255


def _slope(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    model.eval()
    with torch.enable_grad():
        images_NCHW = images_NCHW.detach().requires_grad_()
        loss = F.cross_entropy(scorer.forward(model, images_NCHW), labels_N.to(scorer.device), reduction="sum")
        return torch.autograd.grad(loss, images_NCHW)[0].detach()
