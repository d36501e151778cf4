"""One way from images to probabilities, and scores that do not depend on how the images were dealt out."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from classifier.config.experiment import Experiment
from classifier.data.dataset import Split
from classifier.inference.scorer import Scorer
from classifier.metrics.confusion import ConfusionMatrix
from classifier.runtime.distributed import ProcessGroup

SCORER = Scorer(
    class_names=("a", "b", "c"), size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), device=torch.device("cpu")
)


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(288, 3)
    )


def tiny_part(count: int = 50) -> Split:
    generator = torch.Generator().manual_seed(1)
    return Split(
        images_NCHW=torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8),
        labels_N=torch.randint(3, (count,), generator=generator),
        ids=tuple(f"test/{n}" for n in range(count)),
    )


@dataclass(frozen=True)
class OneOf(ProcessGroup):
    """A rank of a group whose sums are made outside, by the test."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor


def reference_probabilities(model: nn.Module, images_NCHW: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    images_NCHW = (images_NCHW.float() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        return model.eval()(images_NCHW).softmax(1)


def test_probabilities_are_the_softmax_of_the_model_on_normalised_images() -> None:
    model, part = tiny_model(), tiny_part()
    tally, probabilities_NK = SCORER.predict_split(model.train(), part)
    expected_NK = reference_probabilities(model, part.images_NCHW[:])
    torch.testing.assert_close(probabilities_NK, expected_NK)
    scores = tally.scores()
    assert scores["accuracy"] == pytest.approx(float((expected_NK.argmax(1) == part.labels_N).double().mean()))
    loss = nn.functional.nll_loss(expected_NK.double().log(), part.labels_N)
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert not model.training, "dropout and batch norm are at rest"


def test_mirrored_views_are_averaged_as_probabilities() -> None:
    model, part = tiny_model(), tiny_part()
    probabilities_NK = replace(SCORER, test_flip=True).predict_probabilities(model, part.images_NCHW[:])
    views = [reference_probabilities(model, images) for images in (part.images_NCHW[:], part.images_NCHW[:].flip(-1))]
    torch.testing.assert_close(probabilities_NK, (views[0] + views[1]) / 2)
    mirrored_NK = replace(SCORER, test_flip=True).predict_probabilities(model, part.images_NCHW[:].flip(-1))
    torch.testing.assert_close(probabilities_NK, mirrored_NK)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_the_ranks_share_out_every_image_once(world: int) -> None:
    model, part = tiny_model(), tiny_part(5)
    shards = [SCORER.compute_confusion_matrix(model, part, OneOf(rank=rank, world_size=world)).tensor() for rank in range(world)]
    whole = SCORER.compute_scores(model, part)
    together = ConfusionMatrix.from_tensor(torch.stack(shards).sum(0)).scores(SCORER.class_names)
    assert together["confusion"] == whole["confusion"]
    assert together["count"] == 5
    assert together["loss"] == pytest.approx(whole["loss"])


def test_saved_probabilities_give_the_scores_again() -> None:
    model, part = tiny_model(), tiny_part(300)
    scorer = replace(SCORER, precision="bf16", channels_last=True)
    tally, probabilities_NK = scorer.predict_split(scorer.prepare_model(model), part)
    assert probabilities_NK.dtype == torch.float32
    assert tally.scores()["accuracy"] == float((probabilities_NK.argmax(1) == part.labels_N).double().mean())
    assert torch.equal(probabilities_NK, scorer.predict_probabilities(model, part.images_NCHW[:])), "evaluated as predicted"


def test_number_formats_agree_roughly_and_differ_really() -> None:
    model, part = tiny_model(), tiny_part()
    exact_NK = SCORER.predict_probabilities(model, part.images_NCHW[:])
    short_NK = replace(SCORER, precision="bf16").predict_probabilities(model, part.images_NCHW[:])
    torch.testing.assert_close(exact_NK, short_NK, atol=0.03, rtol=0)
    assert not torch.equal(exact_NK, short_NK)


def test_training_gets_gradients_and_all_outputs() -> None:
    class WithAuxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny_model()

        def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
            logits_NK = self.net(images_NCHW)
            return logits_NK, 2 * logits_NK

    scorer = replace(SCORER, precision="bf16")
    model = WithAuxiliary()
    logits_NK, auxiliary_NK = scorer.forward(model, torch.rand(4, 3, 8, 8))
    assert logits_NK.dtype == auxiliary_NK.dtype == torch.float32
    (logits_NK.sum() + auxiliary_NK.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("device", "batches"), [("cpu", [64, 64, 64, 16, 1]), ("cuda", [512, 512, 348, 16, 1])])
def test_a_batch_holds_a_bounded_number_of_pixels(device: str, batches: list[int]) -> None:
    scorers = [replace(SCORER, size=size, device=torch.device(device)) for size in (8, 32, 96, 448, 2048)]
    assert [scorer.batch_size for scorer in scorers] == batches


def test_no_images_give_no_probabilities() -> None:
    tally, probabilities_NK = SCORER.predict_split(tiny_model(), tiny_part(0))
    assert tally.count == 0
    assert probabilities_NK.shape == (0, 3)


def test_the_scorer_of_an_experiment() -> None:
    from types import SimpleNamespace
    from typing import Any

    experiment = Experiment().override_all({"train.precision": "bf16", "augment.test_flip": True})
    dataset: Any = SimpleNamespace(class_names=("a", "b"), size=16, channels=1, mean=(0.5,), std=(0.2,))
    scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
    assert (scorer.precision, scorer.test_flip, scorer.channels_last) == ("bf16", True, True)
