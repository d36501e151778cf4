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


@pytest.mark.parametrize(("images", "features"), [(60, 400), (400, 20)])
def test_fewer_images_than_features_are_no_obstacle_and_noise_calls_for_a_strong_penalty(images: int, features: int):
    clean = fit_linear_probe(*make_features(images, features, 3, noise=0.2), 3)
    noisy = fit_linear_probe(*make_features(images, features, 3, noise=8 if features < 100 else 20), 3)
    assert clean.held_out is not None
    assert noisy.held_out is not None
    assert (clean.held_out.accuracy, noisy.held_out.accuracy < 0.95) == (1, True)
    assert find_held_out(torch.arange(images) % 3).tolist() == list(range(images))
    assert noisy.held_out.labels_M.tolist() == torch.arange(images).remainder(3).tolist()
    assert noisy.penalty > clean.penalty
    features_NF, labels_N = make_features(images, features, 3, noise=0.2)
    logits_NK = clean.head(features_NF)
    assert (logits_NK.argmax(1) == labels_N).all()


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
        plain.held_out.logits_MK - adjusted.held_out.logits_MK, offsets_K.expand(len(plain.held_out.labels_M), 3)
    )
