"""From the values that a data set gives its images to the names of its classes.

Every reader passes each value through `parse_label`, and all spellings that it found through `name_classes`: the same
label is the same class in folders, lists, CSV, JSON, Parquet and tar shards.
"""

import codecs
import datetime
import math
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from classifier.errors import DataError, list_few

MAX_CHARACTERS = 1000
"""A longer text is no name of a class."""
MISSING_WORDS = frozenset({"nan", "NaN", "NAN", "NaT", "<NA>", "#N/A", "N/A", "NA", "null", "NULL", "None"})
"""Texts that tools write for a missing value; they may also be the name of a class."""
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"))
_MARKS += ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_NUMBERS = re.compile(rf"{_NUMBER.pattern}(?:[\s;|]+{_NUMBER.pattern})+")
_LISTED_NUMBERS = re.compile(rf"{_NUMBER.pattern}(?:[\s,;|]+{_NUMBER.pattern})*")
_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
_CONTAINERS = (list, tuple, set, frozenset, dict, np.ndarray)


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
    these, and -1 means that there is no label. DataError, naming `where`, for several labels, text that is not UTF-8,
    an infinite number or an index without a name.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        value = decode_text(f"{where}: the label", bytes(value))
    text = value if isinstance(value, str) else _write_scalar(where, value)
    if text is None or not text or text.isspace():
        return None
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"{where} has a label of {len(text):,} characters ({text[:20]!r}...): give the name of a class")
    if class_names is None or not _INTEGER.fullmatch(text) or (isinstance(value, str) and text in class_names):
        return text
    index = int(text.partition(".")[0])
    if index == -1:
        return None
    if not 0 <= index < len(class_names):
        raise DataError(f"{where}: the label {index} is none of the {len(class_names)} classes: correct it")
    return class_names[index]


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
    if isinstance(value, _CONTAINERS):
        raise _several_labels(where, str(value))
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


def _several_labels(where: str, text: str) -> DataError:
    return DataError(
        f"{where} has several labels ({text[:60]}), which are not supported yet: keep one, since each image has one "
        "class"
    )


class NamedClasses(NamedTuple):
    """The class of each spelling of a label; what to say about those that were merged; and why not to train on them."""

    class_of: dict[str, str]
    findings: list[str]
    refusals: list[str]


def name_classes(
    name: str,
    spellings: Iterable[str],
    *,
    trusted: Collection[str] = (),
    what: str = "labels",
    locate: Callable[[str], str] = repr,
) -> NamedClasses:
    """Name the classes of all spellings of labels.

    Spellings that differ only by blanks at their ends, by how Unicode encodes the same letters, or as integers by
    zeros (1, 01, 1.0), are one class. trusted: those that are class names for certain, whatever they look like.
    Those that differ so little that it is unclear whether they are one class (by case, blanks within, invisible
    characters) are to be refused. locate: names where a spelling occurs first. DataError if one holds several labels.
    """
    clean = {spelling: clean_label(spelling) for spelling in spellings}
    blank = next((spelling for spelling, text in clean.items() if not text), None)
    if blank is not None:
        raise DataError(f"{name}: the label {blank!r} is blank: give each image the name of its class")
    trusted_texts = {clean_label(text) for text in trusted}
    for spelling in _find_several(clean, trusted_texts):
        raise _several_labels(f"{name}: {locate(spelling)}", spelling)
    by_key: dict[object, list[str]] = {}
    for spelling, text in clean.items():
        by_key.setdefault(int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else text, []).append(spelling)
    class_of, findings = {}, []
    for key, same in by_key.items():
        texts = {clean[spelling] for spelling in same}
        class_name = texts.pop() if len(texts) == 1 else str(key)
        class_of.update(dict.fromkeys(same, class_name))
        if len(same) > 1:
            findings.append(_describe_merge(name, what, same, class_name))
    missing = sorted(MISSING_WORDS & set(class_of.values()) - trusted_texts)
    if missing:
        findings.append(
            f"{name}: the {what} {list_few([repr(word) for word in missing])} were read as names of classes: leave "
            "them empty if these images have no label."
        )
    return NamedClasses(class_of, findings, list(_find_ambiguous(name, sorted(set(class_of.values())), what)))


def clean_label(text: str) -> str:
    """Return a label without blanks and byte order marks at its ends, its letters composed (Unicode's NFC)."""
    return _ENDS.sub("", unicodedata.normalize("NFC", text))


def _describe_merge(name: str, what: str, same: list[str], class_name: str) -> str:
    if len({clean_label(spelling) for spelling in same}) > 1:
        how, quote = "are the same number", repr
    elif len({unicodedata.normalize("NFC", spelling) for spelling in same}) == 1:
        how, quote = "differ only in how Unicode spells the same letters", ascii
    else:
        how, quote = "differ only by blanks at the ends", repr
    return f"{name}: the {what} {list_few([quote(spelling) for spelling in same])} {how}: one class, {class_name!r}."


def describe_repeated(where: str, class_names: Sequence[str]) -> list[str]:
    """Return a finding if a list of class names has a name twice: these numbers are one class."""
    twice = [repr(name) for name, count in Counter(map(clean_label, class_names)).items() if count > 1]
    return [f"{where} has {list_few(twice)} more than once: each name is one class."] if twice else []


def sort_class_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names: by value if all are numbers, else alphabetically."""
    names = sorted(class_names)
    if all(_NUMBER.fullmatch(name) for name in names):
        names.sort(key=Decimal)
    return tuple(names)


_FOLDS: Mapping[str, Callable[[str], str]] = {
    "case": str.casefold,
    "blanks": lambda text: "".join(text.split()),
    "invisible characters": lambda text: "".join(c for c in text if not _is_invisible(c)),
    "Unicode variants of the same characters": lambda text: unicodedata.normalize("NFKC", text),
}


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _find_ambiguous(name: str, class_names: Iterable[str], what: str) -> Iterator[str]:
    """Yield which class names differ only by what one may overlook, and by what."""
    name_of: dict[str, str] = {}
    for class_name in class_names:
        key = class_name
        for fold in (*_FOLDS.values(), str.casefold):  # NFKC may turn out letters with a case
            key = fold(key)
        if key in name_of:
            other = name_of[key]
            by = [how for how, fold in _FOLDS.items() if fold(other) == fold(class_name)] or [*_FOLDS]
            yield (
                f"{name}: the {what} {other!r} and {class_name!r} differ only by {' or '.join(by)}: "
                "use one name if they are one class, or make the names clearly different"
            )
        name_of[key] = class_name


def _find_several(clean: Mapping[str, str], trusted: Collection[str]) -> list[str]:
    """Return spellings that hold several labels.

    A list in brackets or of numbers is one by its look. A separator may belong to a name (AC|DC), unless the parts are
    labels elsewhere: one of them alone, or each of them in another label.
    """
    texts = set(clean.values())
    parts_of = {
        (text, separator): {part.strip() for part in text.split(separator) if part.strip()}
        for text in texts
        for separator in ";|,"
        if separator in text
    }
    uses = Counter(texts)
    for parts in parts_of.values():
        uses.update(parts)

    def is_several(text: str) -> bool:
        if text in trusted:
            return False
        if _looks_like_list(text):
            return True
        for separator in ";|,":
            parts = parts_of.get((text, separator), set())
            if len(parts) > 1 and all(uses[part] > 1 for part in parts):
                return True
            if len(parts) > 1 and separator != "," and parts & texts:
                return True
        return False

    return [spelling for spelling, text in clean.items() if is_several(text)]


def _looks_like_list(text: str) -> bool:
    inner = text[1:-1].strip()
    if text[0] + text[-1] in ("[]", "{}"):
        return not inner or inner[0] in "'\"" or "," in inner or bool(_LISTED_NUMBERS.fullmatch(inner))
    if text[0] + text[-1] == "()":
        return inner[:1] in ("'", '"') or bool(_NUMBERS.fullmatch(inner.replace(",", " ")))
    return bool(_NUMBERS.fullmatch(text))
