"""From all spellings of labels to the names of classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from classifier.data.labels.values import INTEGER, MAX_CHARACTERS, NUMBER, too_long
from classifier.errors import DataError, list_few

MISSING_WORDS = frozenset({"nan", "NaN", "NAN", "NaT", "<NA>", "#N/A", "N/A", "NA", "null", "NULL", "None"})
"""Texts that tools write for a missing value; they may also be the name of a class."""
_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")


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
    characters) are to be refused. locate: names where a spelling occurs first. DataError if one is blank or too long.
    """
    clean = {spelling: clean_label(spelling) for spelling in spellings}
    blank = next((spelling for spelling, text in clean.items() if not text), None)
    if blank is not None:
        raise DataError(f"{name}: the label {blank!r} is blank: give each image the name of its class")
    if (long := next((spelling for spelling, text in clean.items() if len(text) > MAX_CHARACTERS), None)) is not None:
        raise too_long(f"{name}: {locate(long)}", long)
    trusted_texts = {clean_label(text) for text in trusted}
    by_key: dict[object, list[str]] = {}
    for spelling, text in clean.items():
        by_key.setdefault(int(text.partition(".")[0]) if INTEGER.fullmatch(text) else text, []).append(spelling)
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
    if all(NUMBER.fullmatch(name) for name in names):
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
