"""The laws of the split: a picture's place depends on its content alone, but for loans, which are few and listed."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data.readers.compact import pack_digests
from classifier.data.split import SPLITS, DrawnSplits, SplitInput, draw_splits
from classifier.data.split_names import DRAWN, TEST, TRAIN, VALIDATION
from classifier.errors import DataError

QUICK = settings(max_examples=60, deadline=None)

Picture = tuple[int, int]
"""Content and label."""


def labelled(pictures: Sequence[Picture], supplied: Sequence[int] | None = None) -> SplitInput:
    return SplitInput(
        name="photos",
        class_names=[f"class{k}" for k in range(max(label for _, label in pictures) + 1)],
        ids=[f"{n}.png" for n in range(len(pictures))],
        digests_N=pack_digests(hashlib.blake2b(str(c).encode(), digest_size=16).digest() for c, _ in pictures),
        labels_N=np.array([label for _, label in pictures], np.int64),
        supplied_N=np.full(len(pictures), DRAWN, np.int8) if supplied is None else np.array(supplied, np.int8),
    )


def drawn(pictures: Sequence[Picture], supplied: Sequence[int] | None = None, **shares: Any) -> DrawnSplits:
    settings: dict[str, Any] = {"validation": 0.1, "test": 0.2} | shares
    return draw_splits(labelled(pictures, supplied), **settings, seed=0)


def homes(result: DrawnSplits) -> list[int]:
    """Where every picture's number says it belongs."""
    home = result.splits_N.tolist()
    for loan in result.loans:
        assert SPLITS[home[int(loan.id.removesuffix(".png"))]] == loan.split
        home[int(loan.id.removesuffix(".png"))] = SPLITS.index(loan.home)
    return home


@st.composite
def collections(draw: st.DrawFn, fewest: int = 3) -> list[Picture]:
    """Two to four classes of at least `fewest` contents each, none shared, some copied."""
    pictures: list[Picture] = []
    for label in range(draw(st.integers(2, 4))):
        contents = draw(st.lists(st.integers(0, 10**6), min_size=fewest, max_size=30, unique=True))
        pictures += [(4 * content + label, label) for content in contents]
    copies = draw(st.lists(st.sampled_from(pictures), max_size=8))
    return draw(st.permutations(pictures + copies))


SHARES = st.sampled_from([(0.1, 0.2), (0.2, 0.0), (0.0, 0.3), (0.45, 0.45), (0.02, 0.02)])


@QUICK
@given(collections(), SHARES)
def test_every_class_is_in_every_split_and_copies_stay_together(
    pictures: list[Picture], shares: tuple[float, float]
) -> None:
    validation, test = shares
    result = drawn(pictures, validation=validation, test=test)
    wanted = {TRAIN} | ({VALIDATION} if validation else set()) | ({TEST} if test else set())
    for label in {label for _, label in pictures}:
        here = {int(s) for s, (_, other) in zip(result.splits_N, pictures, strict=True) if other == label}
        assert here == wanted
    place: dict[int, int] = {}
    for (content, _), split in zip(pictures, result.splits_N.tolist(), strict=True):
        assert place.setdefault(content, split) == split


@QUICK
@given(collections(fewest=6), st.data())
def test_adding_pictures_moves_no_other_but_loans(pictures: list[Picture], data: st.DataObject) -> None:
    kept = [n for n in range(len(pictures)) if data.draw(st.booleans())]
    fewer = [pictures[n] for n in kept]
    try:
        before = drawn(fewer)
    except (DataError, ValueError):  # too few are left
        return
    after = drawn(pictures)
    lent = {kept[int(loan.id.removesuffix(".png"))] for loan in before.loans}
    lent |= {int(loan.id.removesuffix(".png")) for loan in after.loans}
    for n, split in zip(kept, before.splits_N.tolist(), strict=True):
        assert n in lent or after.splits_N[n] == split
    assert [homes(after)[n] for n in kept] == homes(before)


@QUICK
@given(collections(), SHARES)
def test_loans_go_only_where_a_class_has_nothing(pictures: list[Picture], shares: tuple[float, float]) -> None:
    result = drawn(pictures, validation=shares[0], test=shares[1])
    home = homes(result)
    lent = Counter()
    for loan in result.loans:
        n = int(loan.id.removesuffix(".png"))
        content, label = pictures[n]
        assert loan.class_name == f"class{label}"
        assert loan.home != loan.split
        assert not any(s == SPLITS.index(loan.split) for s, (_, k) in zip(home, pictures, strict=True) if k == label)
        lent[label, loan.split] += 0 if any(pictures[m][0] == content for m in range(n)) else 1
    assert all(count <= 1 for count in lent.values())


@QUICK
@given(st.permutations([(n, n % 3) for n in range(60)]))
def test_the_order_of_pictures_does_not_matter(pictures: list[Picture]) -> None:
    place = dict(zip(pictures, drawn(pictures).splits_N.tolist(), strict=True))
    straight = sorted(pictures)
    assert [place[picture] for picture in straight] == drawn(straight).splits_N.tolist()


def numbered(count: int) -> dict[int, float]:
    """The number that seed 0 gives to each content, computed anew."""
    numbers = {}
    for content in range(count):
        digest = hashlib.blake2b(str(content).encode(), digest_size=16).digest()
        hashed = hashlib.blake2b(digest, digest_size=8, key=b"0").digest()
        numbers[content] = int.from_bytes(hashed, "little") / 2**64
    return numbers


def texts(result: DrawnSplits) -> tuple[str, ...]:
    return tuple(finding.text for finding in result.findings)


def test_the_nearest_is_lent() -> None:
    """Of ten pictures that all train, the lowest number goes to the test, the highest to validation."""
    numbers = numbered(1000)
    train = [content for content, u in numbers.items() if 0.2 <= u < 0.9][:10]
    pictures = [(content, 0) for content in train] + [(10**6 + n, 1) for n in range(200)]
    result = drawn(pictures)
    ranked = sorted(train, key=lambda content: numbers[content])
    assert {(pictures[int(loan.id[:-4])][0], loan.home, loan.split) for loan in result.loans} == {
        (ranked[0], "train", "test"),
        (ranked[-1], "train", "validation"),
    }
    assert any("2 pictures of small classes moved" in text for text in texts(result))
    test = [content for content, u in numbers.items() if u < 0.2][:4]  # a class that would only test
    result = drawn([(content, 0) for content in test] + pictures[10:])
    ranked = sorted(test, key=lambda content: numbers[content])
    assert result.splits_N[:4].tolist().count(TEST) == 2
    assert result.splits_N[test.index(ranked[-1])] == TRAIN


def test_shares_hold_in_expectation() -> None:
    pictures = [(n, n % 10) for n in range(20_000)]
    result = drawn(pictures)
    shares = np.bincount(result.splits_N, minlength=3) / len(pictures)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    assert not result.loans
    assert not result.findings
    other = draw_splits(labelled(pictures), validation=0.1, test=0.2, seed=1)
    assert (other.splits_N == TEST)[result.splits_N == TEST].mean() == pytest.approx(0.2, abs=0.02)


def test_another_test_share_moves_nothing_to_or_from_validation() -> None:
    pictures = [(n, n % 10) for n in range(2000)]
    one, two = drawn(pictures, test=0.1).splits_N, drawn(pictures, test=0.4).splits_N
    np.testing.assert_array_equal(one == VALIDATION, two == VALIDATION)
    assert set(np.flatnonzero(one == TEST)) < set(np.flatnonzero(two == TEST))


def test_a_class_of_two_trains_and_tests() -> None:
    pictures = [(n, 0) for n in range(100)] + [(1000, 1), (1001, 1)]
    result = drawn(pictures)
    assert sorted(result.splits_N[-2:].tolist()) == [TRAIN, TEST]
    assert "validation has no picture of 'class1'." in texts(result)


def test_supplied_splits_stay() -> None:
    pictures = [(n, n % 2) for n in range(300)]
    supplied = [(TRAIN, VALIDATION, TEST)[n // 100] for n in range(300)]
    result = drawn(pictures, supplied)
    assert result.splits_N.tolist() == supplied
    assert not result.findings


def test_what_is_not_supplied_is_drawn_from_train() -> None:
    pictures = [(n, n % 2) for n in range(400)]
    supplied = [TEST if n < 100 else TRAIN for n in range(400)]
    result = drawn(pictures, supplied)
    assert set(result.splits_N[:100].tolist()) == {TEST}
    assert np.bincount(result.splits_N[100:], minlength=3)[[VALIDATION, TEST]].tolist() == [
        pytest.approx(30, abs=15),
        0,
    ]
    assert texts(result) == ("photos brings no validation split: 10% of its training pictures are kept for it.",)
    only_train = drawn(pictures, [TRAIN] * 400)
    assert [text.split(":")[0] for text in texts(only_train)] == [
        "photos brings no test split",
        "photos brings no validation split",
    ]
    np.testing.assert_array_equal(only_train.splits_N, drawn(pictures).splits_N)
    none = drawn(pictures, supplied, validation=0.0)
    assert VALIDATION not in none.splits_N


def test_rows_without_a_split_go_where_none_is_supplied() -> None:
    pictures = [(n, n % 2) for n in range(300)]
    supplied = [TEST if n < 100 else DRAWN for n in range(300)]
    result = drawn(pictures, supplied)
    assert (result.splits_N[:100] == TEST).all()
    assert set(result.splits_N[100:].tolist()) == {TRAIN, VALIDATION}


def test_copies_across_supplied_splits_are_reported() -> None:
    pictures = [(n % 50, n % 2) for n in range(60)]
    supplied = [TRAIN] * 40 + [VALIDATION] * 10 + [TEST] * 10
    result = drawn(pictures, supplied)
    assert result.splits_N.tolist() == supplied
    assert [finding.kind for finding in result.findings] == ["duplicates_across"]
    assert texts(result) == ("10 pictures of test lie in train too, byte for byte: 50.png, 51.png, 52.png and 7 more.",)


def test_one_content_under_two_labels_is_reported_and_not_lent() -> None:
    pictures = [(n, 0) for n in range(50)] + [(n, 1) for n in range(45, 95)]
    result = drawn(pictures)
    assert texts(result)[0] == (
        "5 pictures lie under several labels, byte for byte; one pair is 45.png (class0) and 50.png (class1)."
    )
    assert result.splits_N[45:50].tolist() == result.splits_N[50:55].tolist()


@QUICK
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=4, max_size=40), SHARES)
def test_shared_contents_break_nothing(pictures: list[Picture], shares: tuple[float, float]) -> None:
    try:
        result = drawn(pictures, validation=shares[0], test=shares[1])
    except DataError:
        return
    place: dict[int, int] = {}
    for (content, _), split in zip(pictures, result.splits_N.tolist(), strict=True):
        assert place.setdefault(content, split) == split
    for label in {label for _, label in pictures}:
        assert any(s == TRAIN for s, (_, k) in zip(result.splits_N, pictures, strict=True) if k == label)


def test_refusals_name_the_class_and_the_mend() -> None:
    many = [(n, 0) for n in range(50)]
    with pytest.raises(DataError, match=r"photos: the class 'class1' has only one picture: add more, or remove it"):
        drawn([*many, (99, 1)])
    with pytest.raises(DataError, match=r"the 3 pictures of class 'class1' are copies of one: add others"):
        drawn([*many, (99, 1), (99, 1), (99, 1)])
    hollow = dataclasses.replace(labelled([*many, (99, 0)]), class_names=["class0", "class1"])
    with pytest.raises(DataError, match=r"the class 'class1' has no picture: add more"):
        draw_splits(hollow, validation=0.1, test=0.2, seed=0)
    with pytest.raises(DataError, match=r"the class 'class1' has no training picture: add some, or remove it"):
        drawn([*many, (98, 1), (99, 1)], [TRAIN] * 50 + [TEST] * 2)
    with pytest.raises(DataError, match=r"data\.validation 0\.5 and data\.test 0\.5 leave no pictures to train on"):
        drawn(many + [(n, 1) for n in range(50, 99)], validation=0.5, test=0.5)
    train = [content for content, u in numbered(100).items() if 0.2 <= u < 0.9]
    with pytest.raises(DataError, match=r"photos has too few pictures \(4\) to draw its splits: add more"):
        drawn([(content, n // 2) for n, content in enumerate(train[:4])])


def test_folds_take_each_picture_once_and_keep_copies_together():
    rng = np.random.default_rng(0)
    pictures = [(int(content), int(content) % 3) for content in rng.integers(0, 80, 200)]
    tested = np.zeros(len(pictures), int)
    for fold in range(5):
        splits_N = drawn(pictures, folds=5, fold=fold).splits_N
        here = splits_N == SPLITS.index("test")
        tested += here
        contents = [{c for (c, _), mine in zip(pictures, splits_N == split, strict=True) if mine} for split in range(3)]
        assert not contents[0] & contents[2]
        assert not contents[1] & contents[2]
        counts = np.bincount([label for (_, label), mine in zip(pictures, here, strict=True) if mine], minlength=3)
        assert counts.min() > 0.5 * counts.max()
    assert (tested == 1).all()


def test_folds_leave_the_supplied_test_pictures_out():
    pictures = [(n, n % 2) for n in range(60)]
    supplied = [SPLITS.index("test") if n < 20 else SPLITS.index("train") for n in range(60)]
    splits_N = drawn(pictures, supplied, folds=4, fold=1).splits_N
    assert (splits_N[:20] == DRAWN).all()
    assert (splits_N[20:] == SPLITS.index("test")).sum() == 10


@pytest.mark.parametrize(("folds", "fold", "words"), [(9, 0, "from 2 to 8"), (4, 4, "data.fold 4")])
def test_folds_that_cannot_be_are_refused(folds, fold, words):
    with pytest.raises(DataError, match=words):
        drawn([(n, n % 2) for n in range(8)], folds=folds, fold=fold)
