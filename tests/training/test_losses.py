"""Losses agree with torch's cross-entropy, the focal loss paper, and the laws of class weights."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from classifier.config.sections import LossConfig
from classifier.errors import ConfigError
from classifier.training import losses

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 5, generator=GENERATOR) * 3
LABELS = torch.randint(0, 4, (40,), generator=GENERATOR)  # the last class has no image
SOFT = torch.softmax(torch.randn(40, 5, generator=GENERATOR), 1)
COUNTS = torch.tensor([100, 10, 40, 50, 0])


def build(**changes) -> losses.Loss:
    loss = losses.build(LossConfig(**changes), class_counts_K=COUNTS)
    assert isinstance(loss, losses.Loss)
    return loss


@pytest.mark.parametrize(("smoothing", "targets"), [*itertools.product([0.0, 0.1, 0.5], [LABELS, SOFT])])
def test_cross_entropy_equals_torchs(smoothing, targets):
    losses_N = build(smoothing=smoothing)(LOGITS, targets)
    expected_N = F.cross_entropy(LOGITS, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses_N, expected_N)
    assert losses_N.shape == (40,)


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "soft"])
def test_weighted_cross_entropy_equals_torchs(targets):
    weights_K = torch.tensor([0.5, 5, 1.25, 1, 1])
    losses_N = build(class_weights="balanced")(LOGITS, targets)
    torch.testing.assert_close(losses_N, F.cross_entropy(LOGITS, targets, weight=weights_K, reduction="none"))


def test_balanced_weights_have_equal_sums_per_class_and_mean_one():
    weights_K = build(class_weights="balanced").weights_K
    assert weights_K is not None
    assert (weights_K * COUNTS)[:4].tolist() == pytest.approx([50.0] * 4)
    assert (weights_K * COUNTS).sum() / COUNTS.sum() == pytest.approx(1)
    assert build().weights_K is None


@pytest.mark.parametrize(("smoothing", "targets"), [(0.0, LABELS), (0.1, LABELS), (0.0, SOFT)])
def test_binary_cross_entropy_equals_timms(smoothing, targets):
    from timm.loss.binary_cross_entropy import BinaryCrossEntropy

    threshold = losses.BINARY_SHARE if targets is SOFT else None
    expected_NK = BinaryCrossEntropy(smoothing, threshold, reduction="none")(LOGITS, targets)
    torch.testing.assert_close(build(name="bce", smoothing=smoothing)(LOGITS, targets), expected_NK.mean(1))


def test_weighted_binary_cross_entropy_weights_each_image_by_its_classes():
    weighted, plain = build(name="bce", class_weights="balanced"), build(name="bce")
    assert weighted.weights_K is not None
    torch.testing.assert_close(weighted(LOGITS, LABELS), plain(LOGITS, LABELS) * weighted.weights_K[LABELS])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_equals_the_papers(gamma):
    p_N = LOGITS.softmax(1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(build(name="focal", gamma=gamma)(LOGITS, LABELS), -((1 - p_N) ** gamma) * p_N.log())


def test_focal_loss_equals_torchvisions_for_two_classes():
    from torchvision.ops import sigmoid_focal_loss

    labels_N = LABELS % 2
    margin_N = LOGITS[:, 1] - LOGITS[:, 0]
    expected_N = sigmoid_focal_loss(margin_N, labels_N.float(), alpha=-1, gamma=2.0)
    torch.testing.assert_close(build(name="focal", gamma=2.0)(LOGITS[:, :2], labels_N), expected_N)


def test_focal_loss_weighs_easy_images_less():
    sure, unsure = torch.tensor([[5.0, 0, 0, 0, 0]]), torch.tensor([[0.0, 0, 0, 0, 0]])
    label = torch.tensor([0])
    plain, focal = build(), build(name="focal")
    assert focal(sure, label) / plain(sure, label) < 0.01 < focal(unsure, label) / plain(unsure, label)


@pytest.mark.parametrize("changes", [{}, {"name": "focal"}, {"class_weights": "balanced"}, {"smoothing": 0.2}])
def test_one_hot_targets_equal_labels(changes):
    changes = {"smoothing": 0.1, "class_weights": "balanced"} | changes
    loss = build(**changes)
    torch.testing.assert_close(loss(LOGITS, F.one_hot(LABELS, 5).float()), loss(LOGITS, LABELS))


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_loss_of_mixed_images_is_the_mixture(name):
    loss = build(name=name, smoothing=0.1, class_weights="balanced")
    one_NK, other_NK = F.one_hot(LABELS, 5).float(), F.one_hot(LABELS.roll(1), 5).float()
    mixed_N = loss(LOGITS, 0.3 * one_NK + 0.7 * other_NK)
    torch.testing.assert_close(mixed_N, 0.3 * loss(LOGITS, LABELS) + 0.7 * loss(LOGITS, LABELS.roll(1)))


def test_smoothing_does_not_favour_rare_classes():
    # What logits are best for an image of a frequent class? Its own class, however large a rare class's weight is.
    loss = losses.build(
        LossConfig(class_weights="balanced", smoothing=0.1), class_counts_K=torch.tensor([10_000, 10, 10])
    )
    logits = torch.zeros(1, 3, requires_grad=True)
    for _ in range(200):
        (grad,) = torch.autograd.grad(loss(logits, torch.tensor([0])).sum(), logits)
        logits = (logits - 2 * grad).detach().requires_grad_()
    assert logits.argmax() == 0


def test_auxiliary_heads_add_their_weighted_loss():
    loss = build(smoothing=0.1)
    first, second = LOGITS.flip(0), LOGITS.flip(1)
    expected_N = loss(LOGITS, LABELS) + 0.3 * (loss(first, LABELS) + loss(second, LABELS))
    torch.testing.assert_close(loss((LOGITS, first, second), LABELS), expected_N)
    torch.testing.assert_close(loss((LOGITS,), LABELS), loss(LOGITS, LABELS))


@pytest.mark.parametrize("changes", [{}, {"name": "focal", "gamma": 0.3}, {"name": "focal", "smoothing": 0.1}])
def test_gradients_stay_finite_where_the_model_is_certain(changes):
    logits = torch.tensor([[200.0, 0, 0, 0, 0], [0, 200.0, 0, 0, 0]], requires_grad=True)
    loss = build(**changes)(logits, torch.tensor([0, 0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_summed_in_float32():
    assert build()(LOGITS.bfloat16(), LABELS).dtype == torch.float32
    assert build(name="focal")(LOGITS.bfloat16(), SOFT).dtype == torch.float32


def test_logit_adjustment_equals_the_papers():
    """Menon et al., 2021, equation 10: logits plus tau times the log of the class shares."""
    counts_K = torch.tensor([90, 9, 1])
    logits_NK, labels_N = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    loss = losses.build(LossConfig(adjustment=1.5), class_counts_K=counts_K)
    wanted_N = F.cross_entropy(logits_NK + 1.5 * (counts_K / 100).log(), labels_N, reduction="none")
    torch.testing.assert_close(loss(logits_NK, labels_N), wanted_N)


# Several labels an image: the fourth image has none, and no image the last label.
ON = (torch.rand(40, 5, generator=GENERATOR) < torch.tensor([0.5, 0.1, 0.3, 0.2, 0.0])).float()
ON[3] = 0


def build_multilabel(**changes):
    loss = losses.build(LossConfig(**changes), class_counts_K=ON.sum(0), task="multilabel", images=len(ON))
    assert isinstance(loss, losses.MultilabelLoss)
    return loss


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_cross_entropy_of_several_labels_is_binary(name):
    expected_NK = F.binary_cross_entropy_with_logits(LOGITS, ON * 0.8 + 0.1, reduction="none")
    torch.testing.assert_close(build_multilabel(name=name, smoothing=0.2)(LOGITS, ON), expected_NK.mean(1))


def test_focal_loss_of_several_labels_equals_torchvisions():
    from torchvision.ops import sigmoid_focal_loss

    expected_NK = sigmoid_focal_loss(LOGITS, ON, alpha=-1, gamma=1.5)
    torch.testing.assert_close(build_multilabel(name="focal", gamma=1.5)(LOGITS, ON), expected_NK.mean(1))


@pytest.mark.parametrize(("gamma_on", "gamma_off", "clip"), [(0.0, 4.0, 0.05), (1.0, 2.0, 0.0), (0.5, 0.5, 0.2)])
def test_asymmetric_loss_equals_the_papers(gamma_on, gamma_off, clip):
    p_NK = LOGITS.double().sigmoid()
    shifted_NK = (p_NK - clip).clamp_min(0)
    expected_NK = -(ON * (1 - p_NK) ** gamma_on * p_NK.log())
    expected_NK -= (1 - ON) * shifted_NK**gamma_off * (1 - shifted_NK).log()
    loss = build_multilabel(name="asymmetric", gamma_on=gamma_on, gamma_off=gamma_off, clip=clip)
    torch.testing.assert_close(loss(LOGITS, ON), expected_NK.mean(1).float())


def test_balanced_weights_of_a_label_have_equal_sums_with_and_without_it():
    weights_2K = build_multilabel(class_weights="balanced").weights_2K
    assert weights_2K is not None
    counts_2K = torch.stack([40 - ON.sum(0), ON.sum(0)])
    torch.testing.assert_close((weights_2K * counts_2K)[:, :4], torch.full((2, 4), 20.0))
    assert torch.isfinite(weights_2K).all()


def test_adjusted_logits_of_several_labels_have_the_logarithms_of_their_odds():
    offsets_K = build_multilabel(adjustment=0.5).offsets_K
    assert offsets_K is not None
    shares_K = ON.mean(0)[:4]
    torch.testing.assert_close(offsets_K[:4], 0.5 * torch.logit(shares_K))


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "asymmetric"])
def test_losses_of_several_labels_have_finite_gradients_of_certain_logits(name):
    logits_NK = torch.tensor([[-200.0, 200.0, 0.0, 1e4, -1e4]]).requires_grad_()
    losses_N = build_multilabel(name=name, gamma=0.5, gamma_off=0.5)((logits_NK, logits_NK), ON[:1])
    losses_N.sum().backward()
    assert logits_NK.grad is not None
    assert torch.isfinite(losses_N).all()
    assert torch.isfinite(logits_NK.grad).all()


def test_the_asymmetric_loss_of_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.name asymmetric is for images with several labels"):
        build(name="asymmetric")
