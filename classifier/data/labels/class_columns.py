"""One column for each class, of 0 and 1: which columns of a table are classes, and which of them a row has."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from classifier.data.labels.class_names import MISSING_WORDS
from classifier.errors import DataError, list_few

MIN_COLUMNS = 2
MAX_WRONG_SHARE = 0.1
"""A column in which more of the values than this are neither 0 nor 1 is none of a class."""
HOW = "in a column each"
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class ClassColumns(NamedTuple):
    """names: the columns, which are class names. findings: what to say about them."""

    names: list[str]
    findings: list[str]


class _Kinds(dict[Any, bool | str | None]):
    """Value of a table -> its flag; None if it is missing, "other" if it is no flag."""

    def __missing__(self, value: Any) -> bool | str | None:
        text = "" if value is None or value != value else str(value).strip()
        if not text or text in MISSING_WORDS:
            return None
        kind = _FLAGS.get(text.casefold())
        if kind is None:
            return "other"
        self[value] = kind
        return kind


_KINDS = _Kinds()


def find_class_columns(
    where: str, candidates: Sequence[str], rows: Iterable[tuple[str, Mapping[str, Any]]]
) -> ClassColumns | None:
    """Find the columns of 0 and 1 (or true and false); None if there are fewer than two.

    rows: each with its location. DataError if a few values of such a column are something else, or beside such columns
    one has no value at all.
    """
    tallies = {name: Counter() for name in candidates}
    wrong: dict[str, str] = {}
    for location, row in rows:
        for name in candidates:
            kind = _KINDS[row[name]]
            tallies[name][kind] += 1
            if kind == "other" and name not in wrong:
                wrong[name] = f"{where} {location}: the column {name} has the value {str(row[name])[:40]!r}"
    flags = {name: tally[True] + tally[False] for name, tally in tallies.items()}
    names = [name for name, count in flags.items() if count and tallies[name]["other"] <= MAX_WRONG_SHARE * count]
    if len(names) < MIN_COLUMNS:
        return None
    for name in names:
        if name in wrong:
            raise DataError(f"{wrong[name]}, which is neither 0 nor 1: correct it, or remove the column")
    if missing := [name for name in candidates if tallies[name].keys() == {None}]:
        raise DataError(f"{where}: the column {missing[0]} has no value: fill in 0 and 1, or remove it")
    findings = []
    if never := [repr(name) for name in names if not tallies[name][True]]:
        findings.append(f"{where}: no image has the label {list_few(never)}, a column of 0: it is left out.")
    if others := [name for name in candidates if name not in names]:
        findings.append(f"{where}: the classes are its {len(names):,} columns of 0 and 1, without {list_few(others)}.")
    return ClassColumns(names, findings)


def read_flags(where: str, names: Sequence[str], row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes of a row, perhaps none; None if none of these columns has a value.

    DataError if only some have.
    """
    kinds = [_KINDS[row[name]] for name in names]
    if None in kinds:
        if any(kind is not None for kind in kinds):
            raise DataError(f"{where} has no value of {names[kinds.index(None)]}: write 0 or 1, or leave all empty")
        return None
    return tuple(name for name, kind in zip(names, kinds, strict=True) if kind)
