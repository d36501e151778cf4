"""Checks of the columns that join the images: those that give the label away, and values that are missing."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.audit.finding import Finding
from classifier.data.audit.scan import ScanResult
from classifier.data.columns.cells import fold_category
from classifier.data.columns.column import Column
from classifier.data.columns.learn import learn_schema
from classifier.data.columns.request import ColumnRequest
from classifier.data.decoding.decode import SUFFIXES
from classifier.data.folds import assign_folds
from classifier.data.labels.label_sets import find_rarest
from classifier.data.readers.compact import select_strings
from classifier.data.split_names import TRAIN
from classifier.errors import DataError

FOLDS, MAX_IMAGES = 5, 5000
"""Folds by which a column is judged, and images at most."""
MIN_IMAGES = 20
"""Of fewer images nothing is said."""
MIN_LEAK_ACCURACY, MAX_USUAL_SHARE = 0.98, 0.9
"""A column leaks if it alone tells so many labels, and the most frequent one is not more of them than this."""
MIN_DIFFERENT = 0.95
"""A column of identifiers has so many different values, as a share."""
MIN_GAP, MAX_P_VALUE, MIN_CLASS_IMAGES = 0.3, 1e-3, 5
"""Missing values are told by class if their shares differ by so much, of classes that are so large, beyond chance."""
_PATH = re.compile(rf".*[/\\].+|.*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})", re.IGNORECASE | re.DOTALL)


def check_columns(scan: ScanResult, splits_K: np.ndarray, config: DataConfig) -> list[Finding]:
    """Check the columns of the usable images; none if no column joins them. splits_K: as a training would draw them."""
    source, usable = scan.source, scan.usable_N.tolist()
    if not source.columns or not usable:
        return []
    texts, ids = source.select_columns(usable), select_strings(source.ids, usable)
    try:
        request = ColumnRequest.parse(config.columns)
        schema, about = learn_schema(source.name, texts, ids, splits_K == TRAIN, request)
        columns_KF = schema.encode_texts(texts, ids)
    except DataError as error:
        return [Finding(kind="refused", text=str(error))]
    label_sets_MK = source.encode_label_sets()
    labels_K = find_rarest(source.labels_N[scan.usable_N], len(source.class_names), label_sets_MK)
    groups = None if source.groups is None else select_strings(source.groups, usable)
    chosen_M = _choose_judged(len(usable))
    units_M = chosen_M if groups is None else np.unique([groups[k] for k in chosen_M], return_inverse=True)[1]
    folds_M = None
    if len(usable) >= MIN_IMAGES and len(np.unique(units_M)) >= FOLDS:
        folds_M = assign_folds(labels_K[chosen_M], units_M, FOLDS, seed=0)
    class_names = [*source.class_names, "no label"]
    findings = [Finding(kind="reading", text=text) for text in about]
    for column, within in zip(schema.columns, schema.slices.values(), strict=True):
        cells = texts[column.name]
        findings += _check_identifier(column, cells)
        if folds_M is not None:
            judged = select_strings(cells, chosen_M.tolist())
            findings += _check_leak(column, judged, columns_KF[chosen_M, within], labels_K[chosen_M], folds_M)
        findings += _check_missing(column, cells, labels_K, class_names)
    return findings


def _choose_judged(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_IMAGES)).round().astype(np.int64))


def _check_identifier(column: Column, cells: Sequence[str]) -> Iterator[Finding]:
    """Find columns of paths, and those that name each image: codes without a blank, or numbers in a row."""
    values = [cell for cell in cells if cell]
    if len(values) < MIN_IMAGES:
        return
    different = len(set(values))
    if column.kind == "number":
        is_identifier = _are_consecutive(values)
    else:
        have_blanks = sum(len(value.split()) > 1 for value in values)
        is_identifier = column.kind != "date" and 2 * have_blanks < len(values)
    if is_identifier and different >= MIN_DIFFERENT * len(values):
        text = f"{column.name} has {different:,} different values in {len(values):,} images, such as {values[0][:60]!r}"
        yield Finding(kind="identifier_column", text=text)
    elif column.kind != "number" and 2 * sum(map(bool, map(_PATH.fullmatch, values))) > len(values):
        text = f"{column.name} has paths or names of files, such as {values[0][:60]!r}"
        yield Finding(kind="identifier_column", text=text)


def _are_consecutive(values: Sequence[str]) -> bool:
    """Whether numbers are whole, and nearly each of a range is there."""
    if not all(re.fullmatch(r"-?\d{1,15}", value, re.ASCII) for value in values):
        return False
    numbers = [int(value) for value in values]
    return max(numbers) - min(numbers) < 2 * len(numbers)


def _check_leak(
    column: Column, cells: Sequence[str], encoded_MF: np.ndarray, labels_M: np.ndarray, folds_M: np.ndarray
) -> Iterator[Finding]:
    """Find a column that tells the label by itself: by a decision tree, or as every value has one label."""
    usual = np.bincount(labels_M).max() / len(labels_M)
    if usual > MAX_USUAL_SHARE:
        return
    accuracy = _score_values(cells, labels_M, folds_M)
    if accuracy < MIN_LEAK_ACCURACY:
        accuracy = max(accuracy, _score_tree(encoded_MF, labels_M, folds_M))
    if accuracy >= MIN_LEAK_ACCURACY:
        yield Finding(
            kind="leaking_column",
            text=f"{column.name} alone tells {accuracy:.1%} of the labels in a cross-validation of {len(labels_M):,} "
            f"images, the most frequent of which is {usual:.1%} of them",
        )


def _score_values(cells: Sequence[str], labels_M: np.ndarray, folds_M: np.ndarray) -> float:
    """Return the accuracy of the most frequent label that each value has in the other folds."""
    keys = [fold_category(cell) for cell in cells]
    labels, folds = labels_M.tolist(), folds_M.tolist()
    counts: dict[str, Counter[int]] = {}
    counts_in: dict[tuple[str, int], Counter[int]] = {}
    for key, label, fold in zip(keys, labels, folds, strict=True):
        counts.setdefault(key, Counter())[label] += 1
        counts_in.setdefault((key, fold), Counter())[label] += 1
    guesses = {(key, fold): (counts[key] - own).most_common(1) for (key, fold), own in counts_in.items()}
    guessed = (guesses[key, fold] for key, fold in zip(keys, folds, strict=True))
    return sum(bool(guess) and guess[0][0] == label for guess, label in zip(guessed, labels, strict=True)) / len(keys)


def _score_tree(encoded_MF: np.ndarray, labels_M: np.ndarray, folds_M: np.ndarray) -> float:
    """Return the accuracy of decision trees on images that they were not fitted to."""
    from sklearn.tree import DecisionTreeClassifier

    right = 0
    for fold in np.unique(folds_M):
        is_test_M = folds_M == fold
        tree = DecisionTreeClassifier(min_samples_leaf=2, random_state=0)
        tree.fit(encoded_MF[~is_test_M], labels_M[~is_test_M])
        right += int((tree.predict(encoded_MF[is_test_M]) == labels_M[is_test_M]).sum())
    return right / len(labels_M)


def _check_missing(
    column: Column, cells: Sequence[str], labels_K: np.ndarray, class_names: Sequence[str]
) -> Iterator[Finding]:
    """Tell the share of missing values, and whether they tell the class."""
    is_missing_K = np.fromiter((not cell for cell in cells), bool, len(cells))
    if not is_missing_K.any():
        return
    text = f"{column.name}: {is_missing_K.sum():,} of {len(cells):,} values are missing ({is_missing_K.mean():.1%})"
    sizes_C = np.bincount(labels_K, minlength=len(class_names))
    missing_C = np.bincount(labels_K, weights=is_missing_K, minlength=len(class_names))
    (large_L,) = np.nonzero(sizes_C >= MIN_CLASS_IMAGES)
    shares_L = missing_C[large_L] / sizes_C[large_L]
    if len(large_L) > 1 and not is_missing_K.all() and np.ptp(shares_L) >= MIN_GAP:
        from scipy.stats import chi2_contingency

        table_L2 = np.stack([missing_C, sizes_C - missing_C], axis=1)[large_L]
        if table_L2.sum(0).all() and chi2_contingency(table_L2).pvalue < MAX_P_VALUE:  # pyright: ignore[reportAttributeAccessIssue]
            most, least = int(large_L[shares_L.argmax()]), int(large_L[shares_L.argmin()])
            high, low = f"{shares_L.max():.1%}", f"{shares_L.min():.1%}"
            text += f": {high} of those of {class_names[most]!r}, {low} of {class_names[least]!r}"
            yield Finding(kind="missing_by_class", text=text)
            return
    yield Finding(kind="missing_values", text=text)
