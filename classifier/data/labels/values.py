"""From the values that a data set gives its images to labels as text.

Every reader passes each value through `parse_labels`, or `parse_label` where there can be only one, and all spellings
that it found through `encode.name_labels`: the same label is the same class in folders, lists, CSV, JSON, Parquet and
tar shards.
"""

import codecs
import datetime
import math
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from classifier.errors import DataError

Spelling = str | tuple[str, ...]
"""The label of an image as it is spelled, which may turn out to be a list (separators.py); or a list of labels."""
MAX_CHARACTERS = 1000
"""A longer text is no name of a class."""
MAX_LIST_CHARACTERS = 1 << 16
"""A longer text, or list, is no list of labels."""
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"))
_MARKS += ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
NUMBERS = re.compile(rf"{NUMBER.pattern}(?:[\s,;|]+{NUMBER.pattern})+")
_SEPARATED = re.compile(r"[;|,\t\[]")
_FLAGS = {"0", "1", "0.0", "1.0", "True", "False"}


def detect_encoding(head: bytes) -> str:
    """Return the encoding that the first bytes of a text announce by a byte order mark; UTF-8 without one."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8-sig")


def decode_text(where: object, content: bytes, *, is_whole: bool = True) -> str:
    """Return UTF-8, UTF-16 or UTF-32 text without its byte order mark. DataError, naming `where`, if it is neither.

    is_whole: whether the content may not end within a character.
    """
    decoder = codecs.getincrementaldecoder(detect_encoding(content))()
    try:
        text = decoder.decode(content, is_whole)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as in UTF-16 without a mark
        raise DataError(f"{where} is not UTF-8 text: save it as UTF-8")
    return text


def parse_label(where: str, value: Any, class_names: Sequence[str] | None = None) -> str | None:
    """Return one image's label as text; None if it has none (None, NaN, NaT, blank text).

    A whole number is the same label as an integer, a float or a Decimal. class_names: an integer is an index into
    these, and -1 means that there is no label. DataError, naming `where`, for text that is not UTF-8, an infinite
    number or an index without a name.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        value = decode_text(f"{where}: the label", bytes(value))
    text = value if isinstance(value, str) else _write_scalar(where, value)
    if text is None or not text or text.isspace():
        return None
    if len(text) > (MAX_LIST_CHARACTERS if _SEPARATED.search(text) else MAX_CHARACTERS):
        raise too_long(where, text)
    if class_names is None or not INTEGER.fullmatch(text) or (isinstance(value, str) and text in class_names):
        return text
    index = int(text.partition(".")[0])
    if index == -1:
        return None
    if not 0 <= index < len(class_names):
        raise DataError(f"{where}: the label {index} is none of the {len(class_names)} classes: correct it")
    return class_names[index]


def parse_labels(where: str, value: Any, class_names: Sequence[str] | None = None) -> Spelling | None:
    """Return one image's labels: of a list, tuple, set or array, perhaps empty; else one, as `parse_label` does.

    DataError, too, for a list with a missing value, for one of zeros and ones instead of labels, and for text with
    several numbers where class_names are given.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if not isinstance(value, list | tuple):
        if class_names is not None and isinstance(value, str) and value not in class_names and NUMBERS.fullmatch(value):
            raise DataError(f"{where} has several numbers ({value[:60]}): write them as a JSON list")
        return parse_label(where, value, class_names)
    if len(value) > MAX_LIST_CHARACTERS:
        raise DataError(f"{where} has a list of {len(value):,} labels: give those of one image")
    labels = [parse_label(where, one, class_names) for one in value]
    if None in labels:
        raise DataError(f"{where} has a list with a missing label ({str(value)[:60]}): fill it in, or remove it")
    refuse_flags(where, value)
    return tuple(label for label in labels if label is not None)


def refuse_flags(where: str, values: Sequence[Any]) -> None:
    """Raise a DataError if a list holds 0 and 1 as flags, one for each class: as labels they would repeat."""
    if len(values) > len(set(map(str, values))) and {str(value) for value in values} <= _FLAGS:
        raise DataError(
            f"{where} has the list {list(values)!s:.60}, which names a label twice: list the labels of each image, or "
            "give each class a column of 0 and 1"
        )


def too_long(where: str, text: str) -> DataError:
    """Return the error for a label that is too long for the name of a class."""
    return DataError(f"{where} has a label of {len(text):,} characters ({text[:20]!r}...): give the name of a class")


def parse_group(where: str, column: str, value: Any) -> str:
    """Return the group of one image as text, as parse_label does. DataError if it has none."""
    group = parse_label(where, value)
    if group is None:
        raise DataError(f"{where} has no {column}: fill it in, or name another column in data.group")
    return group


def _write_scalar(where: str, value: Any) -> str | None:
    """Return a value that is not text as text; None for a missing one. DataError if it is not a single value."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.bool_ | np.integer):
        value = value.item()
    if value is None or (value.is_nan() if isinstance(value, Decimal) else bool(value != value)):
        return None
    if isinstance(value, float | np.floating | Decimal):
        if math.isinf(value):
            raise DataError(f"{where} has the label {value}, which is no class: correct it")
        is_whole = value == int(value)
        return str(int(value)) if is_whole else str(value.normalize() if isinstance(value, Decimal) else value)
    if isinstance(value, bool | int | datetime.date | datetime.time | datetime.timedelta | np.generic | uuid.UUID):
        return str(value)
    raise DataError(f"{where} has a label of type {type(value).__name__}: give text or a number")
