"""The loss on unlabelled images: the model learns, of strongly augmented images, what it says of weakly augmented ones
(K. Sohn et al., "FixMatch", 2020).

Which images are in which step, and how they are augmented, depends only on the seed and the step: a checkpoint holds
the statistics of the weighting, and nothing random.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.config.sections import AugmentConfig
from classifier.data.dataset import Dataset
from classifier.data.images.arrays import gather
from classifier.data.loader import split_range, steps_per_epoch
from classifier.errors import ConfigError, RunError
from classifier.inference.label_propagation import count_shares
from classifier.inference.scorer import Scorer
from classifier.runtime import counter_rng
from classifier.runtime.counter_rng import permutation
from classifier.training import image_size
from classifier.training.semi.weighting import METHODS, Weighting

# Beside the settings: layers of RandAugment, and the rate of random erasing, of strong views.
STRONG_LAYERS, STRONG_ERASE = 2, 0.5
_WEAK: dict[str, Any] = {
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "erase": 0.0,
    "randaugment": 0,
    "trivial": False,
}
# Added to the seed, so that unlabelled images are drawn apart from labelled ones.
_SEED_OFFSET = 1 << 32


def count_repeats(experiment: Experiment, dataset: Dataset, images: int | None = None) -> int:
    """Return how often an epoch passes the labelled images, so that it passes the unlabelled ones about once.

    images: how many labelled ones there are; by default the training images.
    """
    if dataset.unlabelled is None:
        return 1
    images = len(dataset.train) if images is None else images
    return max(1, -(-len(dataset.unlabelled) // (experiment.semi.ratio * max(1, images))))


def check_semi(experiment: Experiment, dataset: Dataset) -> None:
    """Raise ConfigError if the data set's unlabelled images cannot be learned from."""
    if dataset.unlabelled is None:
        return
    for is_wrong, reason in (
        (dataset.task in ("multilabel", "ordinal"), f"needs one class an image, and data.task is {dataset.task}"),
        (dataset.columns is not None, "gives images without columns: leave data.columns out"),
        (experiment.workers.count > 1, "is learned from by one process: set workers.count to 1"),
        (experiment.optimizer.accumulate > 1, "fills a step of its own: set optimizer.accumulate to 1"),
        (experiment.views > 0, "is augmented anew in each step: set augment.views to 0"),
        (experiment.loss.distill > 0, "is labelled by the model itself: set loss.distill to 0"),
        (experiment.loss.name == "bce", "needs one class an image: leave loss.name bce out"),
    ):
        if is_wrong:
            raise ConfigError(f"data.unlabelled {reason}, or leave data.unlabelled out")


def weaken(config: AugmentConfig) -> AugmentConfig:
    """Return the augmentation of weak views: the resolved one without changes of colour, erasing and random ones."""
    return dataclasses.replace(config, **_WEAK)


def strengthen(config: AugmentConfig) -> AugmentConfig:
    """Return the augmentation of strong views: the resolved one with RandAugment and erasing."""
    layers = 0 if config.trivial else max(STRONG_LAYERS, config.randaugment or 0)
    return dataclasses.replace(config, randaugment=layers, erase=max(STRONG_ERASE, config.erase or 0.0))


class Consistency:
    """The unlabelled images of a training, and the statistics by which they are weighted. experiment: resolved."""

    def __init__(self, experiment: Experiment, dataset: Dataset, scorer: Scorer) -> None:
        assert dataset.unlabelled is not None
        self.experiment, self.dataset, self.scorer = experiment, dataset, scorer
        self.images_MCHW = dataset.unlabelled.images_NCHW
        self.weak, self.strong = weaken(experiment.augment), strengthen(experiment.augment)
        classes = len(dataset.class_names)
        shares_K = count_shares(dataset.train.labels_N, classes)
        self.weighting: Weighting = METHODS[experiment.semi.method](classes, scorer.device, shares_K)
        count = len(self.images_MCHW)
        self.steps_per_pass = steps_per_epoch(count, experiment.semi.ratio * experiment.data.batch)
        self._order_M, self._order_of = torch.empty(0, dtype=torch.int64), -1

    def compute_loss(self, network: nn.Module, teacher: nn.Module, step: int, epoch: int) -> Tensor:
        """Return the weighted loss of the step's unlabelled images, a scalar.

        network: in train mode. teacher: the averaged model, or the network itself; its answers have no gradient.
        """
        seed, (number, part) = self.experiment.seed + _SEED_OFFSET, divmod(step, self.steps_per_pass)
        count, device = len(self.images_MCHW), self.scorer.device
        if self._order_of != number:
            self._order_M, self._order_of = permutation(count, seed, number), number
        low, high = split_range(0, count, part, self.steps_per_pass)
        images_NCHW = gather(self.images_MCHW, self._order_M[low:high]).to(device, non_blocking=True)
        positions_N = torch.arange(low, high, device=device)
        size = image_size.size_at(
            self.experiment.schedule, size=self.dataset.size, epoch=epoch, epochs=self.experiment.train.epochs
        )
        views = [
            policy.augment(
                images_NCHW,
                config,
                key=counter_rng.key(seed, 2 * number + is_strong),
                positions_N=positions_N,
                size=size,
            )
            for is_strong, config in enumerate((self.weak, self.strong))
        ]
        with torch.no_grad():
            answers_NK = _main(self.scorer.forward(teacher, views[0])).softmax(1)
            weights_N = self.weighting.weigh(answers_NK, step)
            labels_N = self.weighting.align(answers_NK).argmax(1)
        logits_NK = _main(self.scorer.forward(network, views[1]))
        loss = (F.cross_entropy(logits_NK, labels_N, reduction="none") * weights_N).mean()
        penalty = self.weighting.penalize(logits_NK[weights_N > 0])
        return self.experiment.semi.weight * (loss if penalty is None else loss + penalty)

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.dataset.unlabelled_fingerprint, "statistics": self.weighting.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """RunError if the training began with other unlabelled images."""
        if state["images"] != self.dataset.unlabelled_fingerprint:
            raise RunError(
                "data.unlabelled has other images than this training began with: restore them, or start a new run"
            )
        self.weighting.load_state_dict(state["statistics"])


def _main(outputs: Any) -> Tensor:
    """Return logits_NK of a model that may have auxiliary heads."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
