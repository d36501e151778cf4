"""One path from images to probabilities; scores do not depend on how the images are sharded."""

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


def tiny_split(count: int = 50) -> Split:
    generator = torch.Generator().manual_seed(1)
    return Split(
        images_NCHW=torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8),
        labels_N=torch.randint(3, (count,), generator=generator),
        ids=tuple(f"test/{n}" for n in range(count)),
    )


@dataclass(frozen=True)
class SingleRank(ProcessGroup):
    """One rank of a process group whose sums are computed by the test."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor


def reference_probabilities(model: nn.Module, images_NCHW: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    images_NCHW = (images_NCHW.float() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        return model.eval()(images_NCHW).softmax(1)


def test_probabilities_are_the_softmax_of_the_model_on_normalised_images() -> None:
    model, split = tiny_model(), tiny_split()
    confusion, probabilities_NK = SCORER.predict_split(model.train(), split)
    expected_NK = reference_probabilities(model, split.images_NCHW[:])
    torch.testing.assert_close(probabilities_NK, expected_NK)
    scores = confusion.scores()
    assert scores["accuracy"] == pytest.approx(float((expected_NK.argmax(1) == split.labels_N).double().mean()))
    loss = nn.functional.nll_loss(expected_NK.double().log(), split.labels_N)
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert not model.training, "dropout is off, batch norm uses running statistics"


def test_flipped_views_are_averaged_as_probabilities() -> None:
    model, split = tiny_model(), tiny_split()
    probabilities_NK = replace(SCORER, test_flip=True).predict_probabilities(model, split.images_NCHW[:])
    views = [reference_probabilities(model, images) for images in (split.images_NCHW[:], split.images_NCHW[:].flip(-1))]
    torch.testing.assert_close(probabilities_NK, (views[0] + views[1]) / 2)
    flipped_NK = replace(SCORER, test_flip=True).predict_probabilities(model, split.images_NCHW[:].flip(-1))
    torch.testing.assert_close(probabilities_NK, flipped_NK)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shards_of_all_ranks_sum_to_the_whole_split(world: int) -> None:
    model, split = tiny_model(), tiny_split(5)
    groups = [SingleRank(rank=rank, world_size=world) for rank in range(world)]
    shards = [SCORER.compute_counts(model, split, group).tensor() for group in groups]
    whole = SCORER.compute_scores(model, split)
    summed = ConfusionMatrix.from_tensor(torch.stack(shards).sum(0)).scores(SCORER.class_names)
    assert summed["confusion"] == whole["confusion"]
    assert summed["count"] == 5
    assert summed["loss"] == pytest.approx(whole["loss"])


def test_probabilities_of_a_split_reproduce_its_scores() -> None:
    model, split = tiny_model(), tiny_split(300)
    scorer = replace(SCORER, precision="bf16", channels_last=True)
    confusion, probabilities_NK = scorer.predict_split(scorer.prepare_model(model), split)
    assert probabilities_NK.dtype == torch.float32
    assert confusion.scores()["accuracy"] == float((probabilities_NK.argmax(1) == split.labels_N).double().mean())
    again_NK = scorer.predict_probabilities(model, split.images_NCHW[:])
    assert torch.equal(probabilities_NK, again_NK), "evaluated as predicted"


def test_bf16_is_close_to_fp32_but_not_equal() -> None:
    model, split = tiny_model(), tiny_split()
    fp32_NK = SCORER.predict_probabilities(model, split.images_NCHW[:])
    bf16_NK = replace(SCORER, precision="bf16").predict_probabilities(model, split.images_NCHW[:])
    torch.testing.assert_close(fp32_NK, bf16_NK, atol=0.03, rtol=0)
    assert not torch.equal(fp32_NK, bf16_NK)


def test_forward_keeps_gradients_and_auxiliary_outputs() -> None:
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
def test_batch_size_is_bounded_by_pixels_and_images(device: str, batches: list[int]) -> None:
    scorers = [replace(SCORER, size=size, device=torch.device(device)) for size in (8, 32, 96, 448, 2048)]
    assert [scorer.batch_size for scorer in scorers] == batches


def test_empty_split_gives_no_probabilities() -> None:
    confusion, probabilities_NK = SCORER.predict_split(tiny_model(), tiny_split(0))
    assert confusion.count == 0
    assert probabilities_NK.shape == (0, 3)


def test_scorer_from_an_experiment() -> None:
    from types import SimpleNamespace
    from typing import Any

    experiment = Experiment().override_all({"train.precision": "bf16", "augment.test_flip": True})
    dataset: Any = SimpleNamespace(class_names=("a", "b"), size=16, channels=1, mean=(0.5,), std=(0.2,), task="ordinal")
    scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
    assert (scorer.precision, scorer.test_flip, scorer.channels_last) == ("bf16", True, True)


def test_labels_of_an_image_have_probabilities_of_their_own() -> None:
    scorer = replace(SCORER, task="multilabel", test_flip=True, temperature=2.0)
    model, split = tiny_model(), tiny_split()
    label_sets_MK = torch.tensor([[False, False, False], [True, False, True], [False, True, True]])
    counts, probabilities_NK = scorer.predict_split(model, split, label_sets_MK)
    images_NCHW = split.images_NCHW[:]
    views = [scorer.forward(model, one_NCHW).double().sigmoid() for one_NCHW in (images_NCHW, images_NCHW.flip(-1))]
    expected_NK = (torch.stack(views).detach().mean(0).logit() / 2).sigmoid()
    torch.testing.assert_close(probabilities_NK.double(), expected_NK, rtol=1e-4, atol=1e-6)
    targets_NK = label_sets_MK[split.labels_N]
    loss = nn.functional.binary_cross_entropy(expected_NK, targets_NK.double())
    scores = counts.scores()
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert scores["hamming_loss"] == pytest.approx(float(((expected_NK >= 0.5) != targets_NK).double().mean()))
