import dataclasses
import itertools

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.labels.label_sets import encode_label_sets
from classifier.data.subset import limit_training_images
from classifier.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


def test_smaller_subsets_are_part_of_larger_ones(digits):
    found = [
        set(limit_training_images(digits, count, seed=0).train.ids) for count in (10, 11, 100, 700, len(digits.train))
    ]
    assert [len(ids) for ids in found] == [10, 11, 100, 700, len(digits.train)]
    assert all(small < large for small, large in itertools.pairwise(found))
    assert set(limit_training_images(digits, 100, seed=1).train.ids) != found[2]


def test_each_class_has_its_share(digits):
    assert torch.bincount(limit_training_images(digits, 10, seed=0).train.labels_N).tolist() == [1] * 10
    train = limit_training_images(digits, 200, seed=0).train
    shares = torch.bincount(digits.train.labels_N) * 200 / len(digits.train)
    assert (torch.bincount(train.labels_N) - shares).abs().max() <= 1


def test_images_keep_their_labels_and_other_splits_do_not_change(digits):
    small = limit_training_images(digits, 50, seed=0)
    index = {name: i for i, name in enumerate(digits.train.ids)}
    positions = torch.tensor([index[name] for name in small.train.ids])
    assert torch.equal(small.train.images_NCHW[:], digits.train.images_NCHW[positions])
    assert torch.equal(small.train.labels_N, digits.train.labels_N[positions])
    assert small.test is digits.test
    assert small.fingerprint not in (digits.fingerprint, limit_training_images(digits, 51, seed=0).fingerprint)


@pytest.mark.parametrize("count", [9, 100_000])
def test_impossible_count_is_refused(digits, count):
    with pytest.raises(DataError, match=rf"data\.limit {count}.*from 10 to 1304"):
        limit_training_images(digits, count, seed=0)


def test_data_limit():
    dataset = data.load(Experiment().override("data.limit", 60).data)
    assert len(dataset.train) == 60
    assert "60 of its 1,304 training images" in dataset.findings[-1]


def test_several_labels_keep_their_shares_and_none_is_left_out(digits):
    """Labels 0 to 9 as the digits, 10 for even ones, 11 for two images; no label for a tenth of them."""
    label_sets = [(k, 10) if k % 2 == 0 else (k,) for k in range(10)] + [(), (0, 10, 11)]
    labels_N = digits.train.labels_N.clone()
    labels_N[::10] = 10
    labels_N[[1, 2]] = 11
    train = dataclasses.replace(digits.train, labels_N=labels_N)
    sets_MK = torch.from_numpy(encode_label_sets(tuple(label_sets), 12))
    names = tuple(str(k) for k in range(12))
    dataset = dataclasses.replace(digits, train=train, class_names=names, task="multilabel", label_sets_MK=sets_MK)
    smaller: set[str] = set()
    for count in (12, 40, 200, 600):
        subset = limit_training_images(dataset, count, seed=0).train
        assert smaller < set(subset.ids)
        smaller = set(subset.ids)
        counts_K = sets_MK[subset.labels_N].sum(0)
        assert (counts_K > 0).all()
        shares_K = sets_MK[labels_N].sum(0) * count / len(labels_N)
        assert ((counts_K - shares_K).abs() <= 2 + 0.15 * shares_K).all()
