"""Which images are chosen: typical and then uncertain ones, no near duplicates, and better than a random choice."""

from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.config.sections import DataConfig
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.label.choose import choose
from classifier.label.guess import Guesses, guess
from classifier.label.pool import Pool, group_duplicates, list_files, scan_files
from classifier.label.typical import choose_typical
from classifier.label.uncertain import choose_uncertain, compute_uncertainty
from tests.label.conftest import write_images

CLASSES = tuple(f"class {k}" for k in range(8))


def make_clusters(seed: int, images: int = 800) -> tuple[Pool, torch.Tensor]:
    """A pool of classes of unequal sizes in two clusters each, and its labels_N."""
    rng = np.random.default_rng(seed)
    shares_K = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.04, 0.03])
    labels_N = rng.choice(len(CLASSES), images, p=shares_K)
    centres = rng.normal(0, 1, (len(CLASSES), 2, 16))
    features_NF = centres[labels_N, rng.integers(0, 2, images)] + rng.normal(0, 0.45, (images, 16))
    files = tuple(Path(f"{n}.png") for n in range(images))
    return Pool(files, features_NF.astype(np.float32), np.arange(images)), torch.from_numpy(labels_N)


def measure(pool: Pool, labels_N: torch.Tensor, chosen: list[int], test: tuple[Pool, torch.Tensor]) -> float:
    own = torch.tensor(chosen)
    probe = fit_linear_probe(torch.from_numpy(pool.features_NF)[own], labels_N[own], len(CLASSES))
    return float((probe.head(torch.from_numpy(test[0].features_NF)).argmax(1) == test[1]).float().mean())


def choose_in_rounds(pool: Pool, labels_N: torch.Tensor, rounds: int, count: int, seed: int) -> list[int]:
    labels: dict[int, tuple[str, ...]] = {}
    ways = []
    for _ in range(rounds):
        guesses = guess(pool, (), labels) if labels else None
        choice = choose(pool, guesses, labels, (), count, seed)
        assert not {*choice.images} & labels.keys()
        ways.append(choice.way)
        labels |= {n: (CLASSES[int(labels_N[n])],) for n in choice.images}
    assert ways[0] == "typical"
    return [*labels]


def test_choice_beats_random_choice():
    ours, randoms = [], []
    for seed in range(4):
        pool, labels_N = make_clusters(seed)
        order = np.random.default_rng(100 + seed).permutation(len(pool.files))
        test = (Pool((), pool.features_NF[order[:400]], order), labels_N[order[:400]])
        ours.append(measure(pool, labels_N, choose_in_rounds(pool, labels_N, 2, 20, seed), test))
        draws = [np.random.default_rng(1000 * seed + n).permutation(len(pool.files))[:40].tolist() for n in range(5)]
        randoms.append(np.mean([measure(pool, labels_N, draw, test) for draw in draws]))
    assert np.mean(ours) > np.mean(randoms) + 0.03


def test_typical_images_are_those_of_uncovered_clusters_and_the_same_for_a_seed():
    rng = np.random.default_rng(0)
    centres = np.eye(4, 6, dtype=np.float32)
    features_NF = np.repeat(centres, 20, 0) + rng.normal(0, 0.05, (80, 6)).astype(np.float32)
    assert sorted(n // 20 for n in choose_typical(features_NF, [], 4, 0)) == [0, 1, 2, 3]
    assert {n // 20 for n in choose_typical(features_NF, [0, 25], 2, 0)} == {2, 3}
    assert choose_typical(features_NF, [3], 9, 5) == choose_typical(features_NF, [3], 9, 5)
    assert len({*choose_typical(features_NF, [1, 2], 200, 0)}) == 78


def test_few_coinciding_or_no_images_are_chosen_once_each():
    same_NF = np.ones((6, 3), np.float32)
    with np.errstate(all="raise"):
        assert sorted(choose_typical(same_NF, [2], 10, 0)) == [0, 1, 3, 4, 5]
    assert choose_typical(same_NF[:1], [0], 5, 0) == []
    is_open_N = np.array([True] * 5 + [False])
    assert sorted(choose_uncertain(same_NF, np.zeros(6), is_open_N, 9, 0)) == [0, 1, 2, 3, 4]


def test_uncertain_images_have_small_margins_and_differ():
    probabilities_NK = np.array([[0.5, 0.5, 0], [0.9, 0.1, 0], [0.4, 0.35, 0.25]])
    assert compute_uncertainty(probabilities_NK).tolist() == pytest.approx([1, 0.2, 0.95])
    assert compute_uncertainty(np.array([[0.5, 1.0], [0.0, 1.0]]), is_multilabel=True).tolist() == [0.5, 0]
    features_NF = np.concatenate([np.repeat(np.eye(2, 4), 10, 0), np.zeros((180, 4))]).astype(np.float32)
    uncertainty_N = np.concatenate([np.full(20, 0.9), np.full(180, 0.1)])
    chosen = choose_uncertain(features_NF, uncertainty_N, np.ones(200, bool), 2, 0)
    assert sorted(n // 10 for n in chosen) == [0, 1]


def test_uncertain_images_follow_when_labels_are_many():
    pool, labels_N = make_clusters(0, 300)
    labels = {n: (CLASSES[int(labels_N[n])],) for n in range(150)}
    guesses = guess(pool, (), labels)
    assert guesses
    choice = choose(pool, guesses, labels, [150, 151], 20, 0)
    assert choice.way == "uncertain"
    assert not {*choice.images} & {*range(152)}
    uncertainty_N = compute_uncertainty(guesses.probabilities_NK)
    assert uncertainty_N[choice.images].mean() > uncertainty_N[152:].mean()
    few = choose(pool, Guesses(CLASSES, guesses.probabilities_NK), [0, 1], [], 5, 0)
    assert few.way == "typical"
    assert choose(pool, Guesses(CLASSES, guesses.probabilities_NK), [0, 1], [], 5, 0, earlier=500).way == "uncertain"


def test_near_duplicates_are_chosen_once(tmp_path: Path):
    write_images(tmp_path / "images", 9)
    copy = tmp_path / "images" / "copy.png"
    copy.write_bytes((tmp_path / "images" / "004-green.png").read_bytes())
    files, count, _ = list_files(tmp_path / "images", 100, 0)
    groups_N = group_duplicates(scan_files(files, DataConfig())).numpy()
    assert count == 10
    names = [file.name for file in files]
    assert groups_N[names.index("copy.png")] == groups_N[names.index("004-green.png")]
    assert len({*groups_N.tolist()}) == 9
    pool = Pool(files, np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32), groups_N)
    assert len(choose(pool, None, (), (), 20, 0).images) == 9
    labelled = [names.index("copy.png")]
    assert names.index("004-green.png") not in choose(pool, None, labelled, (), 20, 0).images


def test_part_of_a_large_folder_is_drawn_and_the_same_for_a_seed(tmp_path: Path):
    write_images(tmp_path / "images", 30)
    files, count, _ = list_files(tmp_path / "images", 10, 3)
    assert (len(files), count) == (10, 30)
    assert files == list_files(tmp_path / "images", 10, 3)[0]
    assert files != list_files(tmp_path / "images", 10, 4)[0]
