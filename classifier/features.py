"""What a model sees in images before its head, and a linear classifier on it."""

import torch
from torch import Tensor, nn

from classifier import models
from classifier.data.images import Images
from classifier.evaluate import Scorer

# L2 penalty of the regression, on standardised features.
PENALTY = 1e-2


def features(model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
    """features_NF, float32 on the CPU: what goes into the model's head. The model is placed and in eval mode."""
    # Auxiliary heads come after the head, and are silent in eval mode.
    head = next(iter(models.head_modules(model).values()))
    taken: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].flatten(1).float().cpu()))
    try:
        for start in range(0, len(images_NCHW), scorer.batch):
            scorer.log_probabilities(model, images_NCHW[start : start + scorer.batch])
    finally:
        hook.remove()
    # With mirrored views, each batch has passed twice: the plain view is the first.
    return torch.cat(taken[:: 2 if scorer.test_flip else 1]).clone()


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
