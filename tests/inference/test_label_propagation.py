"""Labels that spread over neighbours, and probes that learn from them: better with them, and never clearly worse."""

import numpy as np
import pytest
import torch

from classifier.inference import propagated_probe
from classifier.inference.label_propagation import ALPHA, NO_LABEL, build_graph, propagate_labels
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.inference.propagated_probe import fit_propagated_probe, is_worse

CLASSES, DIMENSIONS = 3, 40


def draw_images(images: int, seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """features_NF in clusters, one for each class, and labels_N in turns."""
    means_KF = torch.randn(CLASSES, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    labels_N = torch.arange(images) % CLASSES
    noise_NF = torch.randn(images, DIMENSIONS, generator=torch.Generator().manual_seed(seed))
    return 3 + means_KF[labels_N] + noise * noise_NF, labels_N


def test_labels_are_those_of_the_linear_system_that_they_solve():
    features_NF, labels_N = draw_images(90, 1, noise=1.5)
    known_N = torch.where(torch.arange(90) < 9, labels_N, NO_LABEL)
    given_NK = np.eye(CLASSES)[known_N.clamp_min(0).numpy()] * (known_N >= 0).numpy()[:, None]
    solved_NK = np.linalg.solve(np.eye(90) - ALPHA * build_graph(features_NF).to_dense().numpy(), given_NK)
    solved_NK /= solved_NK.sum(0)  # three labels of each class
    spread_N, weights_N = propagate_labels(features_NF, known_N, CLASSES)
    assert spread_N[9:].tolist() == solved_NK.argmax(1)[9:].tolist()
    shares_NK = solved_NK / solved_NK.sum(1, keepdims=True)
    entropy_N = -(shares_NK * np.log(shares_NK)).sum(1) / np.log(CLASSES)
    np.testing.assert_allclose(weights_N[9:].numpy(), 1 - entropy_N[9:], atol=0.02)
    assert spread_N[:9].tolist() == labels_N[:9].tolist()
    assert weights_N[:9].tolist() == [1] * 9


def test_the_graph_is_symmetric_and_spreads_no_more_than_there_is():
    graph_NN = build_graph(draw_images(50, 1, noise=1)[0]).to_dense()
    assert torch.equal(graph_NN.diagonal(), torch.zeros(50))
    torch.testing.assert_close(graph_NN, graph_NN.T)
    assert float(torch.linalg.eigvalsh(graph_NN)[-1]) == pytest.approx(1, abs=1e-5)


def test_an_image_that_no_label_reaches_does_not_count():
    apart_NF = torch.zeros(40, 4)
    apart_NF[:20, 0], apart_NF[20:, 1] = 1, 1
    apart_NF += 0.01 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    known_N = torch.full((40,), NO_LABEL)
    known_N[:2] = torch.tensor([0, 1])
    _, weights_N = propagate_labels(apart_NF, known_N, 2)
    assert float(weights_N[20:].max()) == 0


def test_unlabelled_images_help_where_labels_are_few():
    gains = []
    for seed in range(5):
        features_NF, labels_N = draw_images(9, 10 + seed, noise=2)
        unlabelled_MF, _ = draw_images(300, 100 + seed, noise=2)
        judged_NF, truth_N = draw_images(600, 200 + seed, noise=2)
        alone = fit_linear_probe(features_NF, labels_N, CLASSES).head
        probe = fit_propagated_probe(features_NF, labels_N, CLASSES, unlabelled_MF).probe
        hits = [int((head(judged_NF).argmax(1) == truth_N).sum()) for head in (alone, probe.head)]
        gains.append(hits[1] / 600 - hits[0] / 600)
    assert np.mean(gains) > 0.05


def test_they_are_left_out_where_they_hurt(monkeypatch: pytest.MonkeyPatch):
    features_NF, labels_N = draw_images(90, 3, noise=1)
    unlabelled_MF, _ = draw_images(200, 4, noise=1)
    monkeypatch.setattr(
        propagated_probe,
        "propagate_labels",
        lambda _, known_N, classes: (known_N.clamp_min(0), torch.ones(len(known_N))),
    )
    found = fit_propagated_probe(features_NF, labels_N, CLASSES, unlabelled_MF)
    assert not found.is_kept
    expected = fit_linear_probe(features_NF, labels_N, CLASSES)
    assert torch.equal(found.probe.head.weight_KF, expected.head.weight_KF)
    assert found.alone is not None
    assert found.propagated is not None
    assert found.propagated.accuracy < found.alone.accuracy


@pytest.mark.parametrize(("lost", "won", "expected"), [(0, 0, False), (3, 5, False), (6, 3, False), (7, 3, True)])
def test_a_difference_within_its_error_is_no_loss(lost: int, won: int, expected: bool):
    hits_M = torch.tensor([False] * lost + [True] * won + [True] * 9)
    others_M = torch.tensor([True] * lost + [False] * won + [True] * 9)
    assert is_worse(hits_M, others_M) is expected
