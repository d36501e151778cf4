"""Classes in splits: which images move so that no split lacks a class, and which classes are too small for that."""

from collections.abc import Iterator

import numpy as np

from classifier.data.labels.label_sets import count_labels
from classifier.data.split_names import SPLITS, TEST, TRAIN, VALIDATION
from classifier.data.split_units import SplitInput, SplitUnits
from classifier.errors import DataError, list_few


def fill_missing(
    images: SplitInput,
    units: SplitUnits,
    splits_N: np.ndarray,
    pool_N: np.ndarray,
    is_fixed_N: np.ndarray,
    missing: list[int],
    shares: dict[int, float],
) -> dict[int, int]:
    """Move images, in splits_N, to splits that lack their class; return the class for which each unit was moved.

    Training comes first, then test, then validation; the rarest class first. A unit moves as a whole, and only where
    each of its classes keeps another one in the split that it leaves. One with two labels stays, where an image has
    one: it would also move images of a class that lacks nothing. is_fixed_N: images that stay where they are.
    """
    stays_U = np.bincount(units.unit_N, is_fixed_N) > 0
    if images.label_sets_MK is None:
        stays_U |= units.shared_U
    moved_for: dict[int, int] = {}
    for k in units.classes_by_size():
        of_class_N = units.images_of(k)
        if {TRAIN, *missing} <= set(splits_N[of_class_N].tolist()):
            continue
        in_pool_N = of_class_N[pool_N[of_class_N]]
        numbers, first = np.unique(units.unit_N[in_pool_N], return_index=True)
        split_of = dict(zip(numbers.tolist(), splits_N[in_pool_N[first]].tolist(), strict=True))
        for split in (TRAIN, *missing):
            if (splits_N[of_class_N] == split).any():
                continue
            used = list(split_of.values())
            movable = [unit for unit in split_of if not stays_U[unit] and unit not in moved_for]
            movable.sort(key=lambda unit: (_distance_to(split, float(units.u_U[unit]), shares), unit))
            spare = [unit for unit in movable if used.count(split_of[unit]) > 1]
            found = (unit for unit in spare if _can_leave(images, units, splits_N, pool_N, unit))
            moving = [unit for unit in (next(found, None),) if unit is not None]
            if split == TRAIN and not moving:  # two images, one in test and one in validation
                moving = spare or [unit for unit in movable if split_of[unit] == VALIDATION] or movable
            for unit in moving[:1]:
                split_of[unit] = split
                moved_for[unit] = k
                splits_N[(units.unit_N == unit) & pool_N] = split
    return moved_for


def _can_leave(images: SplitInput, units: SplitUnits, splits_N: np.ndarray, pool_N: np.ndarray, unit: int) -> bool:
    """Return whether each class of a unit has another unit in its split."""
    if images.label_sets_MK is None:  # a unit that moves has one class
        return True
    own_N = np.flatnonzero((units.unit_N == unit) & pool_N)
    split = splits_N[own_N[0]]
    for k in np.flatnonzero(images.label_sets_MK[images.labels_N[own_N]].any(0)).tolist():
        of_class_N = units.images_of(k)
        in_split_N = of_class_N[(splits_N[of_class_N] == split) & pool_N[of_class_N]]
        if (units.unit_N[in_split_N] == unit).all():
            return False
    return True


def _distance_to(split: int, u: float, shares: dict[int, float]) -> float:
    """Return the distance from a number to the interval of another split."""
    if split == TEST:
        return u
    if split == VALIDATION:
        return 1 - u
    return max(shares[TEST] - u, u - (1 - shares[VALIDATION]))


def check_sizes(images: SplitInput, units: SplitUnits, *, is_divided: bool, in_folds: bool) -> np.ndarray:
    """Return is_single_K: whether all that a class has is one image, or copies of one.

    is_divided: the images of every class are divided between splits. DataError for a class without images; one that is
    in each of the folds but one; and one that would have to be in two splits at once, as other classes have its only
    image, too, or all its images belong to one group.
    """
    classes, image_P, class_P = len(images.class_names), units.image_P, units.class_P
    counts_K = np.bincount(class_P, minlength=classes)
    contents_K, units_K = (
        np.bincount(np.unique(np.stack([class_P, numbers_N[image_P]]), axis=1)[0], minlength=classes)
        for numbers_N in (units.content_N, units.unit_N)
    )
    shared_P = units.shared_C[units.content_N[image_P]]
    is_refused_K = (np.bincount(class_P, shared_P, minlength=classes) > 0) | in_folds
    for k in np.flatnonzero((counts_K == 0) | ((counts_K == 1) & is_refused_K)).tolist():
        count = "only one image" if counts_K[k] else "no image"
        raise DataError(f"{images.name}: the class {images.class_names[k]!r} has {count}: add more, or remove it")
    is_refused_K |= contents_K > 1
    for k in np.flatnonzero((units_K == 1) & (counts_K > 1) & is_refused_K & is_divided).tolist():
        raise DataError(
            f"{images.name}: the {counts_K[k]} images of class {images.class_names[k]!r} "
            f"{'are copies of one' if images.groups is None else 'belong to one group, or are copies of one'}: "
            "add others, or remove the class"
        )
    return contents_K == 1


def check_training(images: SplitInput, splits_N: np.ndarray) -> None:
    """Raise a DataError for a class without a training image."""
    trained_K = count_labels(images.labels_N[splits_N == TRAIN], len(images.class_names), images.label_sets_MK)
    for k in np.flatnonzero(trained_K == 0).tolist():
        raise DataError(
            f"{images.name}: the class {images.class_names[k]!r} has no training image: add some, or remove it"
        )


def describe_single(images: SplitInput, is_single_K: np.ndarray) -> Iterator[str]:
    """Say which classes have only one image, and are not tested."""
    names = [repr(images.class_names[k]) for k in np.flatnonzero(is_single_K).tolist()]
    if len(names) == 1:
        yield f"The class {names[0]} has only one image, which trains: it is not tested."
    elif names and is_single_K.all():
        yield f"Each of the {len(names):,} classes has only one image, which trains: nothing is left to test on."
    elif names:
        some = list_few(names)
        yield f"{len(names):,} classes have only one image each, which trains: they are not tested: {some}."


def describe_missing(images: SplitInput, splits_N: np.ndarray, is_single_K: np.ndarray) -> Iterator[str]:
    """Say which split lacks which classes. is_single_K: classes that are known to be in training only."""
    for split in (VALIDATION, TEST):
        in_split_N = splits_N == split
        counts_K = count_labels(images.labels_N[in_split_N], len(images.class_names), images.label_sets_MK)
        absent = [repr(images.class_names[k]) for k in np.flatnonzero((counts_K == 0) & ~is_single_K).tolist()]
        if absent and in_split_N.any():
            yield f"{SPLITS[split]} has no image of {list_few(absent)}."
