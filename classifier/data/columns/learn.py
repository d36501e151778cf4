"""Learn a schema from the training images: the kind of each column, and the statistics of its values."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from classifier.data.columns.cells import fold_category
from classifier.data.columns.column import Column, ColumnKind
from classifier.data.columns.encode import DATE_WIDTH, parse_cells
from classifier.data.columns.infer import find_day_order, infer_kind
from classifier.data.columns.request import ColumnRequest
from classifier.data.columns.schema import MAX_COLUMNS, MAX_NAME_CHARACTERS, MAX_WIDTH, ColumnSchema
from classifier.data.columns.text_hashing import WIDTH
from classifier.errors import DataError, list_few

MAX_VALUES, MIN_COUNT = 64, 2
"""Values of a category that have a place of their own: so many at most, each of so many training images."""


def learn_schema(
    name: str,
    texts: Mapping[str, Sequence[str]],
    ids: Sequence[str],
    is_training_N: np.ndarray,
    request: ColumnRequest,
) -> tuple[ColumnSchema, list[str]]:
    """Learn from N images' cells, by column; return what is to be said about the columns, too.

    name: of the data set. Columns of one value are left out, and so are those without any, unless they are named.
    DataError, too, if no column is left, or there are too many.
    """
    if len(texts) > MAX_COLUMNS:
        raise DataError(f"{name} has {len(texts):,} columns: name those that matter in data.columns")
    if long := next((one for one in texts if len(one) > MAX_NAME_CHARACTERS), None):
        raise DataError(f"{name} has a column with a name of {len(long):,} characters ({long[:20]}...): shorten it")
    (training_M,) = np.nonzero(is_training_N)
    training: list[int] = training_M.tolist()
    columns: list[Column] = []
    empty: list[str] = []
    constant: list[str] = []
    for column_name, cells in texts.items():
        values = [cells[n] for n in training]
        counts = Counter(filter(None, values))
        if not counts:
            if column_name in request.names:
                raise DataError(
                    f"{name}: the column {column_name} has no value in any training image: fill it in, or leave it "
                    "out of data.columns"
                )
            empty.append(column_name)
        elif len(counts) == 1 and counts.total() == len(values):
            constant.append(column_name)
        else:
            kind = (request.kinds or {}).get(column_name) or infer_kind(counts)
            columns.append(_learn_column(column_name, kind, counts, values, [ids[n] for n in training]))
    findings = [
        f"the column {names[0]} has {what} and is left out."
        if len(names) == 1
        else f"{len(names):,} columns have {what} and are left out: {list_few(names)}."
        for names, what in ((empty, "no value in any training image"), (constant, "the same value everywhere"))
        if names
    ]
    if not columns:
        raise DataError(
            f"{name}: no column tells images apart ({list_few([*empty, *constant])}): fill in their values, or leave "
            "out data.columns"
        )
    schema = ColumnSchema(tuple(columns))
    if schema.width > MAX_WIDTH:
        raise DataError(
            f"{name}: {len(columns):,} columns become {schema.width:,} numbers, more than {MAX_WIDTH:,}: name those "
            "that matter in data.columns"
        )
    return schema, [schema.describe(), *findings]


def _learn_column(
    name: str, kind: ColumnKind, counts: Counter[str], values: Sequence[str], ids: Sequence[str]
) -> Column:
    """counts: how often each value occurs. values: of each training image, with these ids."""
    if kind == "text":
        return Column(name=name, kind=kind, width=WIDTH)
    if kind == "category":
        frequent = _list_frequent(counts)
        return Column(name=name, kind=kind, width=len(frequent) + 1, values=frequent)
    is_day_first = find_day_order(counts) is not False
    column = Column(name=name, kind=kind, width=1 if kind == "number" else DATE_WIDTH, is_day_first=is_day_first)
    numbers_M = parse_cells(column, values, ids.__getitem__)
    numbers_M = numbers_M[~np.isnan(numbers_M)]
    if not len(numbers_M):  # only "-" or "?"
        return column
    std = float(numbers_M.std())
    return dataclasses.replace(column, mean=float(numbers_M.mean()), std=std if std > 0 else 1.0)


def _list_frequent(counts: Counter[str]) -> tuple[str, ...]:
    """Return the categories that have a place, the most frequent ones first, each by its most frequent spelling."""
    by_key: dict[str, Counter[str]] = {}
    for value, count in sorted(counts.items()):
        by_key.setdefault(fold_category(value), Counter())[value] += count
    ranked = sorted(by_key.values(), key=lambda spellings: -spellings.total())
    several = [spellings for spellings in ranked if spellings.total() >= MIN_COUNT] or ranked
    return tuple(spellings.most_common(1)[0][0] for spellings in several[:MAX_VALUES])
