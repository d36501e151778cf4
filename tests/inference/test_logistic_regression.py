"""Linear probes: scikit-learn's optimum, a penalty by cross-validation, weights for features as they are."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from classifier.inference.logistic_regression import (
    assign_folds,
    find_held_out,
    fit_linear_probe,
    fit_logistic_regression,
)
from classifier.models.ordinal_head import find_thresholds


def make_features(images: int, features: int, classes: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(images) % classes
    means_KF = torch.randn(classes, features, generator=generator)
    noise_NF = noise * torch.randn(images, features, generator=generator)
    return 5 + 3 * (means_KF[labels_N] + noise_NF), labels_N


def test_weights_are_those_of_scikit_learn():
    features_NF, labels_N = make_features(90, 8, 3, noise=2)
    features_NF = (features_NF - features_NF.mean(0)) / features_NF.std(0)
    head = fit_logistic_regression(features_NF, labels_N, 3, penalty=0.01)
    reference = LogisticRegression(C=1 / (2 * 0.01 * len(labels_N)), max_iter=1000, tol=1e-8)
    reference.fit(features_NF.numpy(), labels_N.numpy())
    expected = reference.predict_proba(features_NF.numpy())
    probabilities_NK = head(features_NF).softmax(1).numpy()
    np.testing.assert_allclose(probabilities_NK, expected, atol=2e-3)


def make_labels(images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """features_NF, labels_N and label_sets_MK of three labels, the last of them rare."""
    generator = torch.Generator().manual_seed(0)
    targets_NK = torch.rand(images, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.05])
    label_sets_MK, labels_N = targets_NK.unique(dim=0, return_inverse=True)
    means_KF = torch.randn(3, 8, generator=generator)
    return targets_NK.float() @ means_KF + torch.randn(images, 8, generator=generator), labels_N, label_sets_MK


def test_each_of_several_labels_is_a_regression_of_its_own():
    features_NF, labels_N, label_sets_MK = make_labels(120)
    targets_NK = label_sets_MK[labels_N].float()
    head = fit_logistic_regression(features_NF, targets_NK, 3, penalty=0.01)
    for k in range(3):
        reference = LogisticRegression(C=1 / (2 * 0.01 * len(labels_N)), max_iter=1000, tol=1e-8)
        reference.fit(features_NF.numpy(), targets_NK[:, k].numpy())
        expected = reference.predict_proba(features_NF.numpy())[:, 1]
        np.testing.assert_allclose(head(features_NF)[:, k].sigmoid().numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("images", [120, 1200])
def test_a_probe_of_several_labels_is_held_out_by_the_rarest_of_them(images: int):
    features_NF, labels_N, label_sets_MK = make_labels(images)
    probe = fit_linear_probe(features_NF, labels_N, 3, 1.0, "multilabel", label_sets_MK)
    assert probe.held_out is not None
    assert 0 < probe.held_out.loss < 0.6
    index_M = torch.cat([fold.index_M for fold in probe.folds]).sort().values
    targets_NK = label_sets_MK[labels_N].float()
    torch.testing.assert_close(probe.held_out.targets, targets_NK[index_M])
    assert (len(index_M) == images) == (images <= 1000)
    shares = [targets_NK[fold.index_M, 2].sum() / targets_NK[:, 2].sum() for fold in probe.folds]
    assert all(abs(share - 1 / 5) < 0.1 for share in shares), "each fold has its share of the rare label"
    plain = fit_linear_probe(features_NF, labels_N, 3, 0.0, "multilabel", label_sets_MK)
    torch.testing.assert_close(plain.head.bias_K - probe.head.bias_K, targets_NK.mean(0).logit())


@pytest.mark.parametrize(("images", "features"), [(60, 400), (400, 20)])
def test_fewer_images_than_features_are_no_obstacle_and_noise_calls_for_a_strong_penalty(images: int, features: int):
    clean = fit_linear_probe(*make_features(images, features, 3, noise=0.2), 3)
    noisy = fit_linear_probe(*make_features(images, features, 3, noise=8 if features < 100 else 20), 3)
    assert clean.held_out is not None
    assert noisy.held_out is not None
    assert (clean.held_out.accuracy, noisy.held_out.accuracy < 0.95) == (1, True)
    assert find_held_out(torch.arange(images) % 3).tolist() == list(range(images))
    assert noisy.held_out.targets.tolist() == torch.arange(images).remainder(3).tolist()
    assert noisy.penalty > clean.penalty
    features_NF, labels_N = make_features(images, features, 3, noise=0.2)
    logits_NK = clean.head(features_NF)
    assert (logits_NK.argmax(1) == labels_N).all()


def test_ordered_grades_have_one_latent_value_and_ascending_thresholds():
    generator = torch.Generator().manual_seed(0)
    features_NF = torch.randn(400, 12, generator=generator)
    uniform_N = torch.rand(400, generator=generator).clamp(1e-6, 1 - 1e-6)
    values_N = features_NF[:, 0] * 4 - 2 * features_NF[:, 3] + uniform_N.logit()  # of logistic noise
    labels_N = torch.bucketize(values_N, torch.tensor([-4.0, -1.0, 3.0]))
    probe = fit_linear_probe(5 + 2 * features_NF, labels_N, 4, task="ordinal")
    assert probe.head.gaps is not None
    assert probe.held_out is not None
    assert probe.held_out.logits_MK.shape == (400, 4)
    weights_F = 2 * probe.head.weight_KF[0]
    assert float(weights_F[0]) == pytest.approx(4, rel=0.25)
    assert float(weights_F[0] / weights_F[3]) == pytest.approx(-2, rel=0.25)
    widths = find_thresholds(probe.head.gaps)[1] / weights_F[0]
    torch.testing.assert_close(widths, torch.tensor([3.0, 4.0]) / 4, rtol=0.2, atol=0)


def test_one_image_a_class_is_fitted_and_nothing_is_claimed():
    probe = fit_linear_probe(*make_features(3, 50, 3, noise=0.1), 3)
    assert probe.held_out is None
    features_NF, labels_N = make_features(3, 50, 3, noise=0.1)
    assert (probe.head(features_NF).argmax(1) == labels_N).all()


def test_every_class_keeps_an_image_in_each_training():
    labels_N = torch.tensor([0] * 12 + [1] * 2 + [2])
    folds_N = assign_folds(labels_N, 5)
    assert folds_N[-1] == -1
    for fold in range(5):
        assert set(labels_N[folds_N != fold].tolist()) == {0, 1, 2}


def test_images_of_a_group_share_a_fold_and_classes_their_shares():
    units_N = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9, 9, 9, 9, 9, 10, 11, 12, 12])
    labels_N = (units_N % 2).where(units_N < 12, 2)
    folds_N = assign_folds(labels_N, 3, units_N)
    assert all(len(folds_N[units_N == unit].unique()) == 1 for unit in range(13))
    assert folds_N[units_N == 12].tolist() == [-1, -1], "the only group of its class stays in each training"
    for fold in range(3):
        assert (labels_N[folds_N == fold] == 0).sum() == pytest.approx(10 / 3, abs=1)
        assert set(labels_N[folds_N != fold].tolist()) == {0, 1, 2}
    alone_N = torch.arange(len(labels_N))
    assert (assign_folds(labels_N, 5, alone_N + 7) == assign_folds(labels_N, 5)).all()
    assert find_held_out(labels_N, units_N).tolist() == list(range(20))


def test_a_probe_is_not_judged_by_copies_of_what_it_was_fitted_to():
    features_NF, labels_N = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    twice_NF, labels_N = features_NF.repeat_interleave(2, 0), labels_N.repeat_interleave(2)
    copies = fit_linear_probe(twice_NF, labels_N, 2)
    units = fit_linear_probe(twice_NF, labels_N, 2, units_N=torch.arange(30).repeat_interleave(2))
    assert copies.held_out is not None
    assert units.held_out is not None
    assert (copies.held_out.accuracy > 0.85, units.held_out.accuracy < 0.7) == (True, True)


def test_adjustment_takes_the_shares_of_the_classes_from_the_logits_held_out_ones_too():
    features_NF, labels_N = make_features(90, 8, 3, noise=2)
    kept_N = (labels_N > 0) | (torch.arange(90) < 9)  # 3 images of the first class, 30 of the others
    plain = fit_linear_probe(features_NF[kept_N], labels_N[kept_N], 3)
    adjusted = fit_linear_probe(features_NF[kept_N], labels_N[kept_N], 3, adjustment=1.0)
    offsets_K = torch.tensor([3 / 63, 30 / 63, 30 / 63]).log()
    assert plain.held_out is not None
    assert adjusted.held_out is not None
    torch.testing.assert_close(plain.head.bias_K - adjusted.head.bias_K, offsets_K)
    torch.testing.assert_close(
        plain.held_out.logits_MK - adjusted.held_out.logits_MK, offsets_K.expand(len(plain.held_out.targets), 3)
    )
