"""The kind of a column, from its values."""

from collections import Counter
from collections.abc import Mapping

from classifier.data.columns.cells import parse_date, parse_number, split_slashes
from classifier.data.columns.column import ColumnKind

MIN_SHARE = 0.9
"""A column is one of numbers, or dates, if so many of its values are; then the others are mistakes."""
MIN_REPEATED_SHARE = 0.5
"""It is a category if so many of its values occur several times..."""
MAX_MEAN_WORDS = 4.0
"""...and are no longer than this; else it is text."""
_FLAGS = {"true", "false"}


def infer_kind(counts: Mapping[str, int]) -> ColumnKind:
    """Return the kind of a column with these values, none of them missing, and how often each occurs.

    Numbers with zeros before them are codes.
    """
    total = sum(counts.values())
    if not {text.casefold() for text in counts} <= _FLAGS:
        numbers = sum(count for text, count in counts.items() if parse_number(text) is not None)
        if numbers >= MIN_SHARE * total and not any(map(_is_code, counts)):
            return "number"
        is_day_first = find_day_order(counts)
        dates = sum(count for text, count in counts.items() if _is_date(text, is_day_first))
        if dates >= MIN_SHARE * total:
            return "date"
    repeated = sum(count for count in counts.values() if count > 1)
    words = sum(count * len(text.split()) for text, count in counts.items())
    is_short = words <= MAX_MEAN_WORDS * total
    return "category" if repeated >= MIN_REPEATED_SHARE * total and is_short else "text"


def find_day_order(counts: Mapping[str, int]) -> bool | None:
    """Return whether dates like 13/4/2020 have the day first; None if no date tells, or some contradict others."""
    orders = Counter()
    for text in counts:
        if (pair := split_slashes(text)) is not None and max(pair) > 12:
            orders[pair[0] > 12] += 1
    return next(iter(orders)) if len(orders) == 1 else None


def _is_code(text: str) -> bool:
    return len(text) > 1 and text[0] == "0" and text.isdecimal()


def _is_date(text: str, is_day_first: bool | None) -> bool:
    if is_day_first is None and split_slashes(text) is not None:
        return False
    return parse_date(text, bool(is_day_first)) is not None
