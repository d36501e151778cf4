"""Laws of the split: an image's split depends on its content alone, but for reassignments, which are few and listed."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data.assigned_splits import AssignedSplits
from classifier.data.readers.compact import pack_digests
from classifier.data.split import SPLITS, DrawnSplits, SplitInput, draw_splits
from classifier.data.split_names import TEST, TRAIN, UNASSIGNED, VALIDATION
from classifier.errors import DataError

QUICK = settings(max_examples=60, deadline=None)

Item = tuple[int, int]
"""Content and label."""


def make_input(images: Sequence[Item], supplied: Sequence[int] | None = None) -> SplitInput:
    return SplitInput(
        name="photos",
        class_names=[f"class{k}" for k in range(max(label for _, label in images) + 1)],
        ids=[f"{n}.png" for n in range(len(images))],
        digests_N=pack_digests(hashlib.blake2b(str(c).encode(), digest_size=16).digest() for c, _ in images),
        labels_N=np.array([label for _, label in images], np.int64),
        supplied_N=np.full(len(images), UNASSIGNED, np.int8) if supplied is None else np.array(supplied, np.int8),
    )


def draw(images: Sequence[Item], supplied: Sequence[int] | None = None, **shares: Any) -> DrawnSplits:
    settings: dict[str, Any] = {"validation": 0.1, "test": 0.2} | shares
    return draw_splits(make_input(images, supplied), **settings, seed=0)


def find_drawn_splits(result: DrawnSplits) -> list[int]:
    """Return the split that every image's number says."""
    drawn = result.splits_N.tolist()
    for moved in result.reassignments:
        assert SPLITS[drawn[int(moved.id.removesuffix(".png"))]] == moved.split
        drawn[int(moved.id.removesuffix(".png"))] = SPLITS.index(moved.drawn_split)
    return drawn


@st.composite
def collections(draw: st.DrawFn, min_size: int = 3) -> list[Item]:
    """Two to four classes of at least `min_size` contents each, none shared, some copied."""
    images: list[Item] = []
    for label in range(draw(st.integers(2, 4))):
        contents = draw(st.lists(st.integers(0, 10**6), min_size=min_size, max_size=30, unique=True))
        images += [(4 * content + label, label) for content in contents]
    copies = draw(st.lists(st.sampled_from(images), max_size=8))
    return draw(st.permutations(images + copies))


SHARES = st.sampled_from([(0.1, 0.2), (0.2, 0.0), (0.0, 0.3), (0.45, 0.45), (0.02, 0.02)])


@QUICK
@given(collections(), SHARES)
def test_every_class_is_in_every_split_and_duplicates_stay_together(
    images: list[Item], shares: tuple[float, float]
) -> None:
    validation, test = shares
    result = draw(images, validation=validation, test=test)
    wanted = {TRAIN} | ({VALIDATION} if validation else set()) | ({TEST} if test else set())
    for label in {label for _, label in images}:
        in_fold = {int(s) for s, (_, other) in zip(result.splits_N, images, strict=True) if other == label}
        assert in_fold == wanted
    split_of: dict[int, int] = {}
    for (content, _), split in zip(images, result.splits_N.tolist(), strict=True):
        assert split_of.setdefault(content, split) == split


@QUICK
@given(collections(min_size=6), st.data())
def test_adding_images_moves_no_other_except_by_reassignment(images: list[Item], data: st.DataObject) -> None:
    chosen = [n for n in range(len(images)) if data.draw(st.booleans())]
    fewer = [images[n] for n in chosen]
    try:
        before = draw(fewer)
    except (DataError, ValueError):  # too few are left
        return
    after = draw(images)
    reassigned = {chosen[int(moved.id.removesuffix(".png"))] for moved in before.reassignments}
    reassigned |= {int(moved.id.removesuffix(".png")) for moved in after.reassignments}
    for n, split in zip(chosen, before.splits_N.tolist(), strict=True):
        assert n in reassigned or after.splits_N[n] == split
    assert [find_drawn_splits(after)[n] for n in chosen] == find_drawn_splits(before)


@QUICK
@given(collections(), SHARES)
def test_images_are_reassigned_only_where_their_class_is_missing(
    images: list[Item], shares: tuple[float, float]
) -> None:
    result = draw(images, validation=shares[0], test=shares[1])
    drawn = find_drawn_splits(result)
    reassigned = Counter()
    for moved in result.reassignments:
        n = int(moved.id.removesuffix(".png"))
        content, label = images[n]
        assert moved.class_name == f"class{label}"
        assert moved.drawn_split != moved.split
        assert not any(s == SPLITS.index(moved.split) for s, (_, k) in zip(drawn, images, strict=True) if k == label)
        reassigned[label, moved.split] += 0 if any(images[m][0] == content for m in range(n)) else 1
    assert all(count <= 1 for count in reassigned.values())


@QUICK
@given(st.permutations([(n, n % 3) for n in range(60)]))
def test_order_of_images_does_not_matter(images: list[Item]) -> None:
    split_of = dict(zip(images, draw(images).splits_N.tolist(), strict=True))
    straight = sorted(images)
    assert [split_of[image] for image in straight] == draw(straight).splits_N.tolist()


def hash_contents(count: int) -> dict[int, float]:
    """Return the number of each content for seed 0, computed independently."""
    numbers = {}
    for content in range(count):
        digest = hashlib.blake2b(str(content).encode(), digest_size=16).digest()
        hashed = hashlib.blake2b(digest, digest_size=8, key=b"0").digest()
        numbers[content] = int.from_bytes(hashed, "little") / 2**64
    return numbers


def texts(result: DrawnSplits) -> tuple[str, ...]:
    return tuple(finding.text for finding in result.findings)


def test_the_nearest_image_is_reassigned() -> None:
    """Of ten training images, the lowest number goes to test, the highest to validation."""
    numbers = hash_contents(1000)
    train = [content for content, u in numbers.items() if 0.2 <= u < 0.9][:10]
    images = [(content, 0) for content in train] + [(10**6 + n, 1) for n in range(200)]
    result = draw(images)
    ranked = sorted(train, key=lambda content: numbers[content])
    assert {(images[int(moved.id[:-4])][0], moved.drawn_split, moved.split) for moved in result.reassignments} == {
        (ranked[0], "train", "test"),
        (ranked[-1], "train", "validation"),
    }
    assert any("2 images of small classes were moved" in text for text in texts(result))
    test = [content for content, u in numbers.items() if u < 0.2][:4]  # a class that would be in test only
    result = draw([(content, 0) for content in test] + images[10:])
    ranked = sorted(test, key=lambda content: numbers[content])
    assert result.splits_N[:4].tolist().count(TEST) == 2
    assert result.splits_N[test.index(ranked[-1])] == TRAIN


def test_shares_hold_in_expectation() -> None:
    images = [(n, n % 10) for n in range(20_000)]
    result = draw(images)
    shares = np.bincount(result.splits_N, minlength=3) / len(images)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    assert not result.reassignments
    assert not result.findings
    other = draw_splits(make_input(images), validation=0.1, test=0.2, seed=1)
    assert (other.splits_N == TEST)[result.splits_N == TEST].mean() == pytest.approx(0.2, abs=0.02)


def test_another_test_share_moves_nothing_to_or_from_validation() -> None:
    images = [(n, n % 10) for n in range(2000)]
    one, two = draw(images, test=0.1).splits_N, draw(images, test=0.4).splits_N
    np.testing.assert_array_equal(one == VALIDATION, two == VALIDATION)
    assert set(np.flatnonzero(one == TEST)) < set(np.flatnonzero(two == TEST))


def test_class_of_two_images_is_in_train_and_test() -> None:
    images = [(n, 0) for n in range(100)] + [(1000, 1), (1001, 1)]
    result = draw(images)
    assert sorted(result.splits_N[-2:].tolist()) == [TRAIN, TEST]
    assert "validation has no image of 'class1'." in texts(result)


def test_two_images_a_class_leave_none_for_validation() -> None:
    train = [content for content, u in hash_contents(100).items() if 0.2 <= u < 0.9]
    result = draw([(content, n % 3) for n, content in enumerate(train[:6])])
    assert np.bincount(result.splits_N, minlength=3).tolist() == [3, 0, 3]


LONE = "The class 'class1' has only one image, which trains: it is not tested."


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("images", "supplied", "counts", "text"),
    [
        ([(n, 0) for n in range(50)] + [(99, 1)], None, None, LONE),
        ([(n, 0) for n in range(50)] + 3 * [(99, 1)], None, None, LONE),
        (
            [(n, 0) for n in range(50)] + [(90 + n, n) for n in range(1, 6)],
            None,
            None,
            "5 classes have only one image each, which trains: they are not tested: 'class1', 'class2', 'class3' and "
            "2 more.",
        ),
        (
            [(n, n) for n in range(3)],
            None,
            [3, 0, 0],
            "Each of the 3 classes has only one image, which trains: nothing is left to test on.",
        ),
        (
            [(n, n % 3) for n in range(6)],
            [TRAIN] * 3 + [TEST] * 3,
            [3, 0, 3],
            "photos has no validation split: 0 of its 3 training images are set aside for it.",
        ),
    ],
)
def test_the_only_image_of_a_class_trains(seed, images, supplied, counts, text) -> None:
    result = draw_splits(make_input(images, supplied), validation=0.1, test=0.2, seed=seed)
    labels = np.array([label for _, label in images])
    for label in {label for content, label in images if [other for _, other in set(images)].count(label) == 1}:
        assert set(result.splits_N[labels == label].tolist()) == {TRAIN}
    assert text in texts(result)
    assert not any("no image of 'class1'" in other or "99.png" in other for other in texts(result))
    if counts:
        assert np.bincount(result.splits_N, minlength=3).tolist() == counts
    assert {moved.split for moved in result.reassignments if moved.class_name != "class0"} <= {"train"}


def test_supplied_splits_are_kept() -> None:
    images = [(n, n % 2) for n in range(300)]
    supplied = [(TRAIN, VALIDATION, TEST)[n // 100] for n in range(300)]
    result = draw(images, supplied)
    assert result.splits_N.tolist() == supplied
    assert not result.findings


def test_missing_splits_are_drawn_from_train() -> None:
    images = [(n, n % 2) for n in range(400)]
    supplied = [TEST if n < 100 else TRAIN for n in range(400)]
    result = draw(images, supplied)
    assert set(result.splits_N[:100].tolist()) == {TEST}
    assert np.bincount(result.splits_N[100:], minlength=3)[[VALIDATION, TEST]].tolist() == [
        pytest.approx(30, abs=15),
        0,
    ]
    count = (result.splits_N == VALIDATION).sum()
    assert texts(result) == (
        f"photos has no validation split: {count} of its 300 training images are set aside for it.",
    )
    only_train = draw(images, [TRAIN] * 400)
    assert [text.split(":")[0] for text in texts(only_train)] == [
        "photos has no test split",
        "photos has no validation split",
    ]
    np.testing.assert_array_equal(only_train.splits_N, draw(images).splits_N)
    none = draw(images, supplied, validation=0.0)
    assert VALIDATION not in none.splits_N


def test_images_without_a_split_fill_the_missing_ones() -> None:
    images = [(n, n % 2) for n in range(300)]
    supplied = [TEST if n < 100 else UNASSIGNED for n in range(300)]
    result = draw(images, supplied)
    assert (result.splits_N[:100] == TEST).all()
    assert set(result.splits_N[100:].tolist()) == {TRAIN, VALIDATION}


def test_duplicates_across_supplied_splits_are_reported() -> None:
    images = [(n % 50, n % 2) for n in range(60)]
    supplied = [TRAIN] * 40 + [VALIDATION] * 10 + [TEST] * 10
    result = draw(images, supplied)
    assert result.splits_N.tolist() == supplied
    assert [finding.kind for finding in result.findings] == ["duplicates_across"]
    assert texts(result) == ("10 test images are in train too, byte for byte: 50.png, 51.png, 52.png and 7 more.",)


def test_content_with_two_labels_is_reported_and_not_reassigned() -> None:
    images = [(n, 0) for n in range(50)] + [(n, 1) for n in range(45, 95)]
    result = draw(images)
    assert texts(result)[0] == (
        "5 images have several labels, byte for byte; one pair is 45.png (class0) and 50.png (class1)."
    )
    assert result.splits_N[45:50].tolist() == result.splits_N[50:55].tolist()


@QUICK
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=4, max_size=40), SHARES)
def test_shared_contents_break_nothing(images: list[Item], shares: tuple[float, float]) -> None:
    try:
        result = draw(images, validation=shares[0], test=shares[1])
    except DataError:
        return
    split_of: dict[int, int] = {}
    for (content, _), split in zip(images, result.splits_N.tolist(), strict=True):
        assert split_of.setdefault(content, split) == split
    for label in {label for _, label in images}:
        assert any(s == TRAIN for s, (_, k) in zip(result.splits_N, images, strict=True) if k == label)


def with_pixels(images: SplitInput, pixels: Sequence[int]) -> SplitInput:
    """The same images, each with the pixels of this number."""
    hashes_N = pack_digests(hashlib.blake2b(f"pixels {n}".encode(), digest_size=16).digest() for n in pixels)
    return dataclasses.replace(images, hashes_N=hashes_N)


def draw_input(images: SplitInput, **shares: Any) -> DrawnSplits:
    return draw_splits(images, **({"validation": 0.1, "test": 0.2, "seed": 0} | shares))


@QUICK
@given(collections(), st.data())
def test_files_with_the_same_pixels_stay_together_and_others_where_they_were(
    images: list[Item], data: st.DataObject
) -> None:
    contents = [content for content, _ in images]
    plain = make_input(images)
    np.testing.assert_array_equal(draw_input(with_pixels(plain, contents)).splits_N, draw_input(plain).splits_N)
    twins = data.draw(st.lists(st.sampled_from(range(len(images))), min_size=1, max_size=5))
    saved_again = [*images, *((10**8 + 4 * n + images[n][1], images[n][1]) for n in twins)]
    grown = with_pixels(make_input(saved_again), [*contents, *(contents[n] for n in twins)])
    result = draw_input(grown)
    split_of: dict[int, int] = {}
    for content, split in zip([*contents, *(contents[n] for n in twins)], result.splits_N.tolist(), strict=True):
        assert split_of.setdefault(content, split) == split


def test_pixels_in_two_supplied_splits_are_reported() -> None:
    images = [(n, n % 2) for n in range(60)]
    supplied = [TRAIN] * 40 + [VALIDATION] * 10 + [TEST] * 10
    result = draw_input(with_pixels(make_input(images, supplied), [*range(50), *range(10)]))
    assert texts(result) == ("10 test images are in train too, pixel for pixel: 50.png, 51.png, 52.png and 7 more.",)
    conflict = draw_input(with_pixels(make_input([(n, n % 2) for n in range(60)]), [n // 2 for n in range(60)]))
    assert texts(conflict)[0].startswith("30 images have several labels, pixel for pixel; one pair is 0.png (class0)")


def assign(images: SplitInput, result: DrawnSplits, earlier: AssignedSplits | None = None) -> AssignedSplits:
    return AssignedSplits.of_images(images.digests_N, images.hashes_N, result.splits_N, earlier)


@st.composite
def growing_sets(draw: st.DrawFn) -> list[SplitInput]:
    """A data set that grows three times, of few images a class: new ones, copies, others with pixels of old ones."""
    rows: list[tuple[int, int, int, str]] = []  # content, label, pixels, group
    sets, has_groups = [], draw(st.booleans())
    for _ in range(4):
        for label in range(3):
            for _ in range(draw(st.integers(0 if rows else 4, 6))):
                content, kind = len(rows), draw(st.sampled_from(["new", "new", "copy", "twin"]))
                pixels = content
                if rows and kind != "new":
                    content_before, _, pixels, _ = draw(st.sampled_from(rows))
                    content = content_before if kind == "copy" else content
                rows.append((content, label, pixels, f"g{draw(st.integers(0, 30))}"))
        images = with_pixels(make_input([(content, label) for content, label, _, _ in rows]), [row[2] for row in rows])
        sets.append(dataclasses.replace(images, groups=[row[3] for row in rows] if has_groups else None))
    return sets


@settings(max_examples=150, deadline=None)
@given(growing_sets())
def test_with_the_splits_of_the_run_before_nothing_ever_moves(sets: list[SplitInput]) -> None:
    """However the set grows; also if images are missing from a run in between."""
    assigned, split_of = None, {}
    for images in [*sets, sets[0], sets[-1]]:
        images = dataclasses.replace(images, assigned=assigned)
        try:
            result = draw_input(images)
        except DataError:  # a class of copies, or without a training image
            continue
        for digest, split in zip(images.digests_N.tolist(), result.splits_N.tolist(), strict=True):
            assert split_of.setdefault(digest, split) == split
        assigned = assign(images, result, assigned)


def test_new_images_follow_those_they_belong_with_and_fill_what_is_missing() -> None:
    numbers = hash_contents(1000)
    train = [content for content, u in numbers.items() if 0.2 <= u < 0.9][:8]
    others = [(10**6 + n, 1) for n in range(200)]
    first = make_input([*((content, 0) for content in train), *others])
    before = draw_input(first)
    assert before.reassignments
    test = [content for content, u in numbers.items() if u < 0.1][:2]  # of the class that had none of its own there
    grown = make_input([*((content, 0) for content in [*train, *test]), *others])
    moved = draw_input(grown)
    assert (moved.splits_N[:8] != before.splits_N[:8]).any()
    kept = draw_input(dataclasses.replace(grown, assigned=assign(first, before)))
    np.testing.assert_array_equal(kept.splits_N[:8], before.splits_N[:8])
    assert kept.splits_N[8:10].tolist() == [TEST, TEST]
    assert not kept.reassignments
    assert "208 of 210 images have their split from an earlier run (data.split_from)." in texts(kept)


def test_assigned_splits_round_trip_and_errors(tmp_path: Path) -> None:
    images = make_input([(n % 50, n % 2) for n in range(60)])
    assigned = assign(images, draw_input(images))
    assert len(assigned.splits_M) == 50
    assigned.write(tmp_path)
    for path in (tmp_path, tmp_path / "splits.safetensors"):
        again = AssignedSplits.read(path)
        np.testing.assert_array_equal(again.recall(images.digests_N, None), draw_input(images).splits_N)
    AssignedSplits(assigned.digests_M, assigned.hashes_M, assigned.splits_M[:, None]).write(tmp_path)
    with pytest.raises(DataError, match="its tensors do not fit together"):
        AssignedSplits.read(tmp_path)
    (tmp_path / "splits.safetensors").write_bytes((tmp_path / "splits.safetensors").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"data\.split_from .*splits\.safetensors is corrupted"):
        AssignedSplits.read(tmp_path)
    with pytest.raises(DataError, match=r"data\.split_from .*gone: there is no splits\.safetensors: give the folder"):
        AssignedSplits.read(tmp_path / "gone")


def test_errors_name_the_class_and_the_fix() -> None:
    many = [(n, 0) for n in range(50)]
    with pytest.raises(DataError, match=r"photos: the class 'class1' has only one image: add more, or remove it"):
        draw([*many, (7, 1)])  # of which it is not the only class
    with pytest.raises(DataError, match=r"photos: the class 'class1' has only one image: add more, or remove it"):
        draw([*many, (99, 1)], folds=5)
    with pytest.raises(DataError, match=r"the 3 images of class 'class1' are copies of one: add others"):
        draw([*many, (7, 1), (7, 1), (7, 1)])
    empty_class = dataclasses.replace(make_input([*many, (99, 0)]), class_names=["class0", "class1"])
    with pytest.raises(DataError, match=r"the class 'class1' has no image: add more"):
        draw_splits(empty_class, validation=0.1, test=0.2, seed=0)
    with pytest.raises(DataError, match=r"the class 'class1' has no training image: add some, or remove it"):
        draw([*many, (98, 1), (99, 1)], [TRAIN] * 50 + [TEST] * 2)
    with pytest.raises(DataError, match=r"data\.validation 0\.5 and data\.test 0\.5 leave no images to train on"):
        draw(many + [(n, 1) for n in range(50, 99)], validation=0.5, test=0.5)
    both = [TRAIN, VALIDATION, TRAIN, VALIDATION]
    with pytest.raises(DataError, match=r"photos has too few images \(4\) to draw its splits: add more"):
        draw([(0, 0), (1, 0), (2, 1), (3, 1)], both)


def test_folds_test_each_image_once_and_keep_duplicates_together():
    rng = np.random.default_rng(0)
    images = [(int(content), int(content) % 3) for content in rng.integers(0, 80, 200)]
    tested = np.zeros(len(images), int)
    for fold in range(5):
        splits_N = draw(images, folds=5, fold=fold).splits_N
        in_fold = splits_N == SPLITS.index("test")
        tested += in_fold
        contents = [{c for (c, _), mine in zip(images, splits_N == split, strict=True) if mine} for split in range(3)]
        assert not contents[0] & contents[2]
        assert not contents[1] & contents[2]
        counts = np.bincount([label for (_, label), mine in zip(images, in_fold, strict=True) if mine], minlength=3)
        assert counts.min() > 0.5 * counts.max()
    assert (tested == 1).all()


def test_folds_leave_out_supplied_test_images():
    images = [(n, n % 2) for n in range(60)]
    supplied = [SPLITS.index("test") if n < 20 else SPLITS.index("train") for n in range(60)]
    splits_N = draw(images, supplied, folds=4, fold=1).splits_N
    assert (splits_N[:20] == UNASSIGNED).all()
    assert (splits_N[20:] == SPLITS.index("test")).sum() == 10


@pytest.mark.parametrize(("folds", "fold", "words"), [(9, 0, "from 2 to 8"), (4, 4, "data.fold 4")])
def test_impossible_folds_are_refused(folds, fold, words):
    with pytest.raises(DataError, match=words):
        draw([(n, n % 2) for n in range(8)], folds=folds, fold=fold)
