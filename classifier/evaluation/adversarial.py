"""White-box adversarial attacks: untargeted, each value perturbed by at most epsilon (infinity norm).

They take a model that its Scorer has placed. Images are uint8; attacked images are float32 in [0, 1] on the scorer's
device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.inference.scorer import Scorer


def fgsm(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor, epsilon: float) -> Tensor:
    """Attack with the fast gradient sign method (Goodfellow et al. 2015): one step."""
    clean_NCHW = _to_float(scorer, images_NCHW)
    gradient_NCHW = _input_gradient(model, scorer, clean_NCHW, labels_N)
    return (clean_NCHW + epsilon * gradient_NCHW.sign()).clamp(0, 1)


def pgd(
    model: nn.Module,
    scorer: Scorer,
    images_NCHW: Tensor,
    labels_N: Tensor,
    epsilon: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    seed: int | None = 0,
) -> Tensor:
    """Attack with projected gradient descent (Madry et al. 2018), by default in steps of epsilon / 4.

    seed: of the random start; None starts from the image itself.
    """
    clean_NCHW = _to_float(scorer, images_NCHW)
    attacked_NCHW = clean_NCHW
    if seed is not None:
        noise_NCHW = torch.rand(clean_NCHW.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        attacked_NCHW = (clean_NCHW + epsilon * noise_NCHW.to(clean_NCHW.device)).clamp(0, 1)
    for _ in range(steps):
        gradient_NCHW = _input_gradient(model, scorer, attacked_NCHW, labels_N)
        attacked_NCHW = attacked_NCHW + (epsilon / 4 if step_size is None else step_size) * gradient_NCHW.sign()
        attacked_NCHW = (clean_NCHW + (attacked_NCHW - clean_NCHW).clamp(-epsilon, epsilon)).clamp(0, 1)
    return attacked_NCHW


def is_correct(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    """Return is_correct_N, bool on the CPU: whether float images are predicted correctly, without mirrored views."""
    model.eval()
    with torch.inference_mode():
        return (scorer.forward(model, images_NCHW).argmax(1).cpu() == labels_N.cpu()).clone()


def _to_float(scorer: Scorer, images_NCHW: Tensor) -> Tensor:
    return images_NCHW.to(scorer.device).float() / 255


def _input_gradient(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    model.eval()
    with torch.enable_grad():
        images_NCHW = images_NCHW.detach().requires_grad_()
        loss = F.cross_entropy(scorer.forward(model, images_NCHW), labels_N.to(scorer.device), reduction="sum")
        return torch.autograd.grad(loss, images_NCHW)[0].detach()
