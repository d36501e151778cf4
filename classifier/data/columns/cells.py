"""The value of one cell: as text, the same for every format of a table, and from there to a number or a date."""

import datetime
import math
import re
import unicodedata
import uuid
from decimal import Decimal
from typing import Any

import numpy as np

from classifier.data.labels.class_names import MISSING_WORDS
from classifier.data.labels.values import INTEGER, decode_text
from classifier.errors import DataError
from classifier.text import show

MAX_CHARACTERS = 10_000
"""Of a text; the rest is cut off."""
MAX_NUMBER = 1e30
"""Larger numbers are mistakes, and their squares would be infinite."""
_UNKNOWN = {"?", "-", "--"}
"""What stands for a missing number or date, too."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*%?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|0,\d+)", re.ASCII)
"""1,250 may be a thousand or one and a quarter: it is neither."""
_FLAGS = {"true": 1.0, "false": 0.0}
_DATE = re.compile(r"(\d{4})([-/])(\d{1,2})(?:\2(\d{1,2}))?(?:[T ]\s*(.+))?", re.ASCII)
_DAY_FIRST = re.compile(r"(\d{1,2})([./])(\d{1,2})\2(\d{4})(?:[T ,]\s*(.+))?", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def write_value(where: str, value: Any) -> str:
    """Return the value of a cell as text: "" if it is missing (None, NaN, NaT, blank, a word that tools write for it).

    DataError, naming `where`, if it is no single value, such as a list, or text that is not UTF-8.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bytes | bytearray | memoryview):
        value = decode_text(where, bytes(value))
    if isinstance(value, np.bool_ | np.integer):
        value = value.item()
    text = value if isinstance(value, str) else _write_scalar(where, value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text[:MAX_CHARACTERS]).encode("utf-8", "replace").decode()
    text = text[:MAX_CHARACTERS].strip()
    return "" if text in MISSING_WORDS else text


def _write_scalar(where: str, value: Any) -> str:
    if isinstance(value, dict | list | tuple | set | frozenset | np.ndarray):
        raise DataError(f"{where} is {show(repr(value)[:40])}: give text or a number, or leave this column out")
    if value is None or (value.is_nan() if isinstance(value, Decimal) else bool(value != value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.timedelta):
        return str(value.total_seconds())
    if isinstance(value, float | np.floating) and abs(value) < 1e15 and value == int(value):
        return str(int(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return str(float(value)) if abs(value) < 1e300 else "inf"  # Python may refuse to write it
    if isinstance(value, int | float | Decimal | np.generic | uuid.UUID):
        return str(value)
    raise DataError(f"{where} has a value of type {type(value).__name__}: give text or a number")


def parse_number(text: str) -> float | None:
    """Return a number; NaN if it is missing, None if the text is none.

    A decimal comma is understood where it cannot separate thousands, and so are a per cent sign, true and false.
    """
    if not text or text in _UNKNOWN:
        return math.nan
    if match := _NUMBER.fullmatch(text):
        number = float(match[1])
    elif _DECIMAL_COMMA.fullmatch(text):
        number = float(text.replace(",", "."))
    else:
        return _FLAGS.get(text.casefold())
    return number if abs(number) <= MAX_NUMBER else None


def parse_date(text: str, is_day_first: bool = True) -> float | None:
    """Return a date in days since 1970, in UTC; NaN if it is missing, None if the text is none.

    2020-04-03, 2020/04/03, 2020-04 and 3.4.2020, perhaps with a time; and 3/4/2020, by is_day_first.
    """
    if not text or text in _UNKNOWN:
        return math.nan
    if match := _DATE.fullmatch(text):
        year, _, month, day, time = match.groups()
    elif match := _DAY_FIRST.fullmatch(text):
        day, separator, month, year, time = match.groups()
        if separator == "/" and not is_day_first:
            day, month = month, day
    else:
        return None
    try:
        moment = datetime.datetime.fromisoformat(
            f"{year}-{int(month):02d}-{int(day or 1):02d}{f' {time.strip()}' if time else ''}"
        )
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) / datetime.timedelta(days=1)


def split_slashes(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a date like 3/4/2020, whose order is unclear; None for any other text."""
    match = _DAY_FIRST.fullmatch(text)
    return (int(match[1]), int(match[3])) if match and match[2] == "/" else None


def fold_category(text: str) -> str:
    """Return what equal categories have in common: neither case, blanks at the ends nor zeros of integers count."""
    if len(text) < 30 and INTEGER.fullmatch(text):
        return str(int(text.partition(".")[0]))
    return text.strip().casefold()
