"""What a model sees in images before its head, and a linear classifier on it."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from classifier import models
from classifier.data.images.arrays import Images
from classifier.inference.scorer import Scorer
from classifier.storage.atomic import file_sha256, retry_io, write_tensors

# L2 penalty of the regression, on standardised features.
PENALTY = 1e-2


def seen(model: nn.Module, scorer: Scorer, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """features_NF, float32, what goes into the model's head, and logits_NK, float32: of one batch, on the device.

    The model is placed and in eval mode; no gradients.
    """
    # Auxiliary heads come after the head, and are silent in eval mode.
    head = next(iter(models.head_modules(model).values()))
    taken: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].flatten(1).float()))
    try:
        with torch.no_grad():
            logits_NK = scorer.forward(model, images_NCHW.to(scorer.device, non_blocking=True))
    finally:
        hook.remove()
    return taken[0], logits_NK


def features(model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
    """features_NF, float32 on the CPU, of any number of plain images. The model is placed."""
    model.eval()
    starts = range(0, len(images_NCHW), scorer.batch_size)
    return torch.cat([seen(model, scorer, images_NCHW[start : start + scorer.batch_size])[0].cpu() for start in starts])


def regression(train_NF: Tensor, labels_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights and biases of multinomial logistic regression with an L2 penalty, by L-BFGS."""
    weight_KF = torch.zeros(classes, train_NF.shape[1], requires_grad=True)
    bias_K = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_KF, bias_K], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(train_NF @ weight_KF.T + bias_K, labels_N)
        loss = loss + PENALTY * weight_KF.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return weight_KF.detach(), bias_K.detach()


def keep(features: dict[str, Tensor], path: Path) -> None:
    """Write features into a .safetensors file, whole or not at all. RunError if it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(features, part)
        part.replace(path)

    retry_io(write, path)


def identity(weights: str | None) -> str:
    """What names the weights that features were made with: a file by its content."""
    return file_sha256(Path(weights)) if weights is not None and Path(weights).is_file() else str(weights)
