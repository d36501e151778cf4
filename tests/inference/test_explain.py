"""Heatmaps find a planted patch, and change with the weights of the model."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from classifier import models
from classifier.config.sections import ModelConfig
from classifier.inference import explain
from classifier.inference.scorer import Scorer

SIZE = 32
SCORER = Scorer(
    class_names=("none", "patch"), size=SIZE, mean=(0.5,), std=(0.25,), device=torch.device("cpu"), channels_last=False
)


def make_planted(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise images, half of them with a checkered patch of 8 pixels: images, labels, the patch's top left (N x 2)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(60, 196, (count, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    corners = torch.randint(0, SIZE - 8, (count, 2), generator=generator)
    check = ((torch.arange(8)[:, None] // 2 + torch.arange(8) // 2) % 2 * 255).to(torch.uint8)
    for n in range(count):
        if labels[n]:
            top, left = corners[n].tolist()
            images[n, 0, top : top + 8, left : left + 8] = check
    return images, labels, corners


@pytest.fixture(scope="module", params=["resnet9_16", pytest.param("vit_tiny", marks=pytest.mark.slow)])
def trained_model(request: pytest.FixtureRequest) -> nn.Module:
    """A model trained to find the patch: a convolutional network or a transformer."""
    torch.manual_seed(0)
    model = models.build(ModelConfig(name=request.param), classes=2, channels=1, size=SIZE)
    images, labels, _ = make_planted(512, seed=0)
    epochs, lr = (6, 2e-3) if request.param == "resnet9_16" else (8, 1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            model.train()
            loss = nn.functional.cross_entropy(SCORER.forward(model, images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (
        SCORER.predict_probabilities(model, make_planted(200, seed=1)[0]).argmax(1) == make_planted(200, seed=1)[1]
    ).double().mean() > 0.95
    return model.eval()


def pointing_game_accuracy(maps_NHW: Tensor, corners_N2: Tensor, margin: int = 2) -> float:
    """The pointing game (Zhang et al. 2018): share of maps with their maximum within `margin` pixels of the patch."""
    peaks = maps_NHW.flatten(1).argmax(1)
    rows, columns = peaks // SIZE, peaks % SIZE
    inside = [
        (peak >= corner - margin) & (peak < corner + 8 + margin)
        for peak, corner in zip((rows, columns), corners_N2.unbind(1), strict=True)
    ]
    return float((inside[0] & inside[1]).double().mean())


@pytest.mark.long
@pytest.mark.parametrize("method", [explain.grad_cam, explain.integrated_gradients, explain.occlusion])
def test_heatmap_maximum_lies_in_the_planted_patch(trained_model, method):
    images, labels, corners = make_planted(40, seed=2)
    images, corners = images[labels == 1], corners[labels == 1]
    maps = method(trained_model, SCORER, images, torch.ones(len(images), dtype=torch.int64))
    assert maps.shape == (20, SIZE, SIZE)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert pointing_game_accuracy(maps, corners) >= 0.9


def test_random_weights_give_other_heatmaps(trained_model):
    """The model-randomisation check of Adebayo et al. 2018."""
    images, labels, _ = make_planted(40, seed=3)
    before = explain.grad_cam(trained_model, SCORER, images[labels == 1], labels[labels == 1])
    reset = copy.deepcopy(trained_model)
    torch.manual_seed(1)
    for module in reset.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    after = explain.grad_cam(reset.eval(), SCORER, images[labels == 1], labels[labels == 1])
    pairs = [(a.flatten().numpy(), b.flatten().numpy()) for a, b in zip(before, after, strict=True) if b.std() > 0]
    ranks = [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in pairs]
    assert abs(np.mean([*ranks, 0.0])) < 0.3


def test_attribution_sums_to_the_rise_of_the_logit(trained_model):
    image = make_planted(2, seed=4)[0][1]
    attribution = explain.compute_attribution(trained_model, SCORER, image, 1, steps=512)
    base = torch.full((1, 1, SIZE, SIZE), 0.5)
    ends = torch.cat([base, image[None].float() / 255])
    with torch.no_grad():
        low, high = SCORER.forward(trained_model, ends)[:, 1].tolist()
    assert float(attribution.sum()) == pytest.approx(high - low, rel=0.03)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "resnet18", "mobilenet_v3_small", "densenet121"])
def test_grad_cam_works_for_every_architecture(name):
    scorer = dataclasses.replace(SCORER, size=224, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = scorer.prepare_model(models.build(ModelConfig(name=name), classes=2, channels=3, size=224))
    nn.init.normal_(next(iter(models.head_modules(model).values())).get_parameter("weight"), std=0.1)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    maps = explain.grad_cam(model, scorer, images, torch.tensor([0, 1]))
    assert maps.shape == (2, 224, 224)
    assert maps.std() > 0


def test_grad_cam_is_zero_without_a_spatial_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 2))
    images = make_planted(2, seed=5)[0]
    assert not explain.grad_cam(model, SCORER, images, torch.tensor([0, 1])).any()


def test_nearest_neighbours_by_cosine_similarity():
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    indices, similarities = explain.nearest_neighbours(torch.tensor([[2.0, 0.1]]), known, 2)
    assert indices.tolist() == [[0, 2]]
    assert similarities[0, 0] > similarities[0, 1]
