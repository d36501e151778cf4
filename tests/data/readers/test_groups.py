"""Groups of images are never split."""

from pathlib import Path

import numpy as np
import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data import split
from classifier.data.readers.compact import pack_digests
from classifier.data.split_names import UNASSIGNED
from classifier.errors import ConfigError, DataError


def drawn(groups, digests=None, labels=None, supplied=None, seed=0):
    count = len(groups)
    return split.draw_splits(
        split.SplitInput(
            name="set",
            class_names=("a", "b"),
            ids=[str(n) for n in range(count)],
            digests_N=pack_digests(digests or [n.to_bytes(16, "big") for n in range(count)]),
            labels_N=np.arange(count) % 2 if labels is None else labels,
            supplied_N=np.full(count, UNASSIGNED, np.int8) if supplied is None else supplied,
            groups=groups,
        ),
        validation=0.2,
        test=0.2,
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(5))
def test_group_stays_in_one_split(seed: int) -> None:
    groups = [f"patient {n % 60}" for n in range(600)]
    splits_N = drawn(groups, seed=seed).splits_N
    for number in range(60):
        assert len(set(splits_N[number::60].tolist())) == 1
    assert 0.08 < (splits_N == split.TEST).mean() < 0.35
    assert len(set(splits_N.tolist())) == 3


def test_duplicates_merge_groups_and_a_growing_group_stays() -> None:
    groups = [f"p{n % 50:02d}" for n in range(200)]
    digests = [n.to_bytes(16, "big") for n in range(200)]
    digests[1] = digests[0]  # of p00 and p01
    splits_N = drawn(groups, digests).splits_N
    assert len({*splits_N[0::50].tolist(), *splits_N[1::50].tolist()}) == 1
    more_N = drawn([*groups, *groups], [*digests, *(n.to_bytes(16, "big") for n in range(200, 400))]).splits_N
    assert (more_N[:200] == splits_N).all()


def test_groups_across_given_splits_are_reported() -> None:
    supplied = np.repeat([split.TRAIN, split.VALIDATION, split.TEST], 20).astype(np.int8)
    groups = [f"p{n}" for n in range(60)]
    groups[50] = "p3"
    found = drawn(groups, supplied=supplied)
    assert found.findings == (
        split.SplitFinding("groups_across", "1 test images belong to groups that are in train too: 50."),
    )
    assert (found.splits_N == supplied).all()


def test_class_of_one_group_is_an_error() -> None:
    with pytest.raises(DataError, match="the 10 images of class 'a' belong to one group, or are copies"):
        drawn(["one" if n % 2 == 0 else f"p{n}" for n in range(20)])


def test_groups_in_names(photos: Path) -> None:
    source = data.open_source(DataConfig(path=str(photos), group=r"/(\d)\d\.png"))
    assert source.groups == [f"group {id_[-6]}" for id_ in source.ids]
    source = data.open_source(DataConfig(path=str(photos), group=r"cat/(\d)"))
    assert "20 images match no group of data.group and form one each: dog/00.png" in source.findings[0]
    for pattern, error, reason in (
        ("(", ConfigError, "no valid regular expression"),
        ("patient", ConfigError, "photos has no columns; give a regular expression with one capturing group"),
        ("owl/(.)", DataError, "matches no name in photos"),
    ):
        with pytest.raises(error, match=reason):
            data.open_source(DataConfig(path=str(photos), group=pattern))
