"""From the cells of one column to numbers."""

from collections.abc import Callable, Sequence

import numpy as np

from classifier.data.columns.cells import fold_category, parse_date, parse_number
from classifier.data.columns.column import Column
from classifier.data.columns.text_hashing import hash_texts
from classifier.errors import DataError
from classifier.text import show

DATE_WIDTH = 5
MAX_DEVIATIONS = 10.0
"""Numbers farther from the mean are encoded as if they were so far."""
YEAR_DAYS, WEEK_DAYS = 365.2425, 7.0


def encode_column(column: Column, texts: Sequence[str], locate: Callable[[int], str]) -> np.ndarray:
    """Return encoded_NF, float32, of cells as write_value returns them: NaN in each row whose value is missing.

    locate: names a row. DataError names the first row whose value is no number, or no date.
    """
    encode = {"number": _encode_numbers, "date": _encode_dates, "category": _encode_categories, "text": _encode_texts}
    return encode[column.kind](column, texts, locate)


def parse_cells(column: Column, texts: Sequence[str], locate: Callable[[int], str]) -> np.ndarray:
    """Return the numbers of a column of numbers, or the days since 1970 of dates; float64, NaN where it is missing.

    Errors as encode_column.
    """
    known: dict[str, float | None] = {}
    values_N = np.empty(len(texts))
    for n, text in enumerate(texts):
        if text not in known:
            known[text] = parse_number(text) if column.kind == "number" else parse_date(text, column.is_day_first)
        value = known[text]
        if value is None:
            raise DataError(
                f"{locate(n)}: {column.name} is {show(repr(text[:40]))}, which is no {column.kind}: correct it, leave "
                f"it empty, or train with --data.columns {column.name}:category or :text"
            )
        values_N[n] = value
    return values_N


def _encode_numbers(column: Column, texts: Sequence[str], locate: Callable[[int], str]) -> np.ndarray:
    return _standardise(column, parse_cells(column, texts, locate))[:, None]


def _encode_dates(column: Column, texts: Sequence[str], locate: Callable[[int], str]) -> np.ndarray:
    """Standardised days, and how far into the year and the week they are, on a circle."""
    days_N = parse_cells(column, texts, locate)
    angles_N2 = days_N[:, None] * (2 * np.pi / np.array([YEAR_DAYS, WEEK_DAYS]))
    encoded = [_standardise(column, days_N)[:, None], np.sin(angles_N2), np.cos(angles_N2)]
    return np.concatenate(encoded, axis=1, dtype=np.float32, casting="same_kind")


def _standardise(column: Column, values_N: np.ndarray) -> np.ndarray:
    return np.clip((values_N - column.mean) / column.std, -MAX_DEVIATIONS, MAX_DEVIATIONS).astype(np.float32)


def _encode_categories(column: Column, texts: Sequence[str], _: Callable[[int], str]) -> np.ndarray:
    """One of the known values, or the last place for all others."""
    positions = {fold_category(value): k for k, value in enumerate(column.values)}
    known = {text: positions.get(fold_category(text), len(column.values)) for text in set(texts)}
    positions_N = np.array([known[text] for text in texts], np.int64)
    encoded_NF = np.eye(column.width, dtype=np.float32)[positions_N]
    encoded_NF[_are_missing(texts)] = np.nan
    return encoded_NF


def _encode_texts(column: Column, texts: Sequence[str], _: Callable[[int], str]) -> np.ndarray:
    encoded_NF = hash_texts(texts, column.width)
    encoded_NF[_are_missing(texts)] = np.nan
    return encoded_NF


def _are_missing(texts: Sequence[str]) -> np.ndarray:
    return np.fromiter((not text for text in texts), bool, len(texts))
