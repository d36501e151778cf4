"""Corruptions are seeded and grow with severity, attacks match a reference, and unfamiliar images are detected."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from classifier.evaluation.adversarial import fgsm, is_correct, pgd
from classifier.evaluation.corruptions import GROUPS, SEVERITIES, corrupt
from classifier.evaluation.robustness import compute_auroc, detection_aurocs
from classifier.inference.out_of_distribution import fit_detector, score_images
from classifier.inference.scorer import Scorer

KINDS = [kind for group in GROUPS.values() for kind in group]
SCORER = Scorer(class_names=("a", "b", "c"), size=32, mean=(0.5,) * 3, std=(0.25,) * 3, device=torch.device("cpu"))


def photograph(size: int) -> torch.Tensor:
    """Four uint8 crops of a photograph that ships with scikit-learn."""
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float()
    crops = [image[..., y : y + 200, x : x + 200] for y, x in ((0, 0), (0, 300), (200, 100), (150, 400))]
    return nn.functional.interpolate(torch.cat(crops), (size, size), mode="area").round().to(torch.uint8)


@pytest.mark.parametrize("size", [32, 96, 224])
@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_grow_with_severity_and_follow_their_seed(kind, size):
    images = photograph(size)
    distances = []
    for severity in range(1, SEVERITIES + 1):
        changed = corrupt(images, kind, severity, seed=3)
        assert changed.shape == images.shape
        assert changed.dtype == torch.uint8
        distances.append(float((changed.float() - images.float()).square().mean()))
    assert distances[0] > 0
    assert distances[-1] > 1.2 * distances[0]
    # Blocks of different sizes are aligned differently with the edges in the image.
    assert kind == "pixelate" or all(b > 0.85 * a for a, b in itertools.pairwise(distances))
    assert torch.equal(corrupt(images, kind, 3, seed=3), corrupt(images, kind, 3, seed=3))


@pytest.mark.parametrize("kind", KINDS)
def test_grey_and_tiny_images_can_be_corrupted(kind):
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert corrupt(images, kind, 5).shape == images.shape


def model_and_images() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(3)
    )
    images = torch.randint(0, 256, (200, 3, 32, 32), dtype=torch.uint8)
    model(torch.rand(1, 3, 32, 32))
    model.eval()
    with torch.no_grad():
        labels = SCORER.forward(model, images).argmax(1)
    return model, images, labels


def test_attacks_stay_within_epsilon_and_the_value_range():
    model, images, labels = model_and_images()
    for attacked in (fgsm(model, SCORER, images, labels, 8 / 255), pgd(model, SCORER, images, labels, 8 / 255)):
        perturbation = (attacked - images.float() / 255).abs()
        assert perturbation.max() <= 8 / 255 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert is_correct(model, SCORER, attacked, labels).double().mean() < 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attacks_match_foolbox():
    """The accuracies under attack are within a percentage point of foolbox's."""
    from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack
    from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
    from foolbox.models.pytorch import PyTorchModel

    model, images, labels = model_and_images()

    class Plain(nn.Module):
        def forward(self, images):
            return SCORER.forward(model, images)

    plain = PyTorchModel(Plain().eval(), bounds=(0, 1), device="cpu")
    for epsilon in (1 / 255, 4 / 255):
        pairs: dict[Any, torch.Tensor] = {
            LinfFastGradientAttack(): fgsm(model, SCORER, images, labels, epsilon),
            LinfProjectedGradientDescentAttack(abs_stepsize=epsilon / 4, steps=10, random_start=False): pgd(
                model, SCORER, images, labels, epsilon, seed=None
            ),
        }
        for theirs, ours in pairs.items():
            _, reference, _ = theirs(plain, images.float() / 255, labels, epsilons=epsilon)
            accuracies = [is_correct(model, SCORER, one, labels).double().mean() for one in (ours, reference)]
            assert abs(accuracies[0] - accuracies[1]) <= 0.01
            assert (ours - reference).abs().mean() < 1e-3


def test_auroc_is_the_share_of_ordered_pairs():
    assert compute_auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == pytest.approx(3.5 / 4)


def test_ood_detector_separates_noise_from_photographs():
    model, _, _ = model_and_images()
    crops = photograph(32).repeat(60, 1, 1, 1)
    noise = torch.randint(-12, 13, crops.shape, generator=torch.Generator().manual_seed(0))
    known = (crops.int() + noise).clamp(0, 255).to(torch.uint8)
    detector = fit_detector(model, SCORER, known[:160], known[160:])
    random_images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    assert detection_aurocs(model, SCORER, known[160:], random_images, detector)["layers"] > 0.99
    assert (score_images(detector, model, SCORER, random_images) > detector.threshold).all()
    assert (score_images(detector, model, SCORER, known[160:]) > detector.threshold).double().mean() <= 0.05


@pytest.mark.parametrize("held_out", [0, 1, 19])
def test_nothing_is_out_of_distribution_where_few_images_set_the_threshold(held_out):
    """Above the largest score of one image are half of all images alike."""
    model, images, _ = model_and_images()
    detector = fit_detector(model, SCORER, images, images[:1].repeat(held_out, 1, 1, 1))
    assert detector.threshold == float("inf")


def test_mirrored_views_do_not_change_the_ood_score():
    model, images, _ = model_and_images()
    detector = fit_detector(model, SCORER, images, images)
    flipping = dataclasses.replace(SCORER, test_flip=True)
    assert torch.equal(score_images(detector, model, flipping, images), score_images(detector, model, SCORER, images))
