"""Which texts are lists of labels, and of which labels: `cat;dog`, `["cat", "dog"]`, `3 7 12`."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from classifier.data.labels.class_names import clean_label
from classifier.data.labels.values import NUMBER, NUMBERS, Spelling, parse_labels, refuse_flags
from classifier.errors import DataError

MIN_SEVERAL_SHARE = 0.01
"""If text seems to hold several labels for fewer of the images than this, it is taken for a mistake."""
SEPARATORS = "\t;|,"
_EMPTY = ("[]", "{}")
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")


class SplitLabels(NamedTuple):
    """labels: of each spelling, each once. how: how lists are written, for a sentence; "" if there are none."""

    labels: list[tuple[str, ...]]
    how: str
    is_multilabel: bool
    """Whether an image may have any number of labels; if not, each spelling is one."""


def split_labels(
    name: str,
    spellings: Sequence[Spelling],
    images_S: np.ndarray,
    *,
    task: str,
    trusted: Collection[str] = (),
    how: str = "in lists",
    locate: Callable[[Spelling], str] = str,
) -> SplitLabels:
    """Find the labels in each spelling. The separator is found: it is the same for all.

    images_S: images of each spelling. task: data.task; auto is multilabel where an image has several labels, or an
    empty list. trusted: names of classes, which are never split. how: how lists that are no text were written.
    DataError for several labels, or none, where the task has one for each image, for lists beside other values, and
    for different separators.
    """
    labels, how = _split(name, spellings, trusted, how, locate, is_sure=task == "multilabel")
    labels = [tuple(dict.fromkeys(one)) for one in labels]
    several = [n for n, one in enumerate(labels) if len(one) != 1]
    if task == "multilabel" or not several:
        return SplitLabels(labels, how, task == "multilabel")
    first = f"{name}: {locate(spellings[several[0]])} has {_describe(labels[several[0]])}"
    count, total = int(images_S[several].sum()), int(images_S.sum())
    if task != "auto":
        raise DataError(f"{first}, but one class under data.task {task}: keep one, or give --data.task multilabel")
    if how.startswith("separated") and count < MIN_SEVERAL_SHARE * total:
        raise DataError(
            f"{first}, and only {count:,} of {total:,} images have several: keep one, or give --data.task multilabel"
        )
    return SplitLabels(labels, how, True)


def _describe(labels: Sequence[str]) -> str:
    return f"several labels ({', '.join(labels)[:60]})" if labels else "an empty list of labels"


def _split(
    name: str,
    spellings: Sequence[Spelling],
    trusted: Collection[str],
    how: str,
    locate: Callable[[Spelling], str],
    *,
    is_sure: bool,
) -> tuple[Iterable[tuple[str, ...]], str]:
    """Return the labels of each spelling, and how lists are written. is_sure: whether labels are lists for certain."""
    texts = {spelling: clean_label(spelling) for spelling in spellings if isinstance(spelling, str)}
    if len(texts) < len(spellings):
        _refuse_unlisted(name, texts, locate)
        return [one for one in spellings if isinstance(one, tuple)], how
    names = {clean_label(text) for text in trusted}
    free = {spelling: text for spelling, text in texts.items() if text not in names}
    lists: dict[str, tuple[str, ...]] = {spelling: () for spelling, text in free.items() if text in _EMPTY}
    bracketed = [spelling for spelling, text in free.items() if spelling not in lists and _is_bracketed(text)]
    if bracketed:
        _refuse_unlisted(name, texts.keys() - lists.keys() - set(bracketed), locate)
        lists |= {spelling: _parse_list(f"{name}: {locate(spelling)}", free[spelling]) for spelling in bracketed}
        return [lists[spelling] for spelling in texts], "in lists"
    separator = _find_separator(name, {s: text for s, text in free.items() if s not in lists}, locate, is_sure=is_sure)
    if separator is None:
        return [lists.get(spelling, (spelling,)) for spelling in texts], "in lists" if lists else ""
    for spelling, text in free.items():
        if spelling not in lists:
            parts = tuple(_cut(text, separator))
            refuse_flags(f"{name}: {locate(spelling)}", parts)
            lists[spelling] = parts
    how = {"\t": "separated by tabs", " ": "separated by blanks"}.get(separator, f"separated by {separator!r}")
    return [lists.get(spelling, (spelling,)) for spelling in texts], how


def _refuse_unlisted(name: str, texts: Collection[str], locate: Callable[[Spelling], str]) -> None:
    """Raise a DataError for a text among lists."""
    for text in texts:
        raise DataError(
            f"{name}: {locate(text)} has the label {text[:60]!r}, which is no list, while other images have lists of "
            "labels: write it as a list"
        )


def _find_separator(
    name: str, texts: dict[str, str], locate: Callable[[Spelling], str], *, is_sure: bool
) -> str | None:
    """Return what separates labels in texts, by their spellings; None if each is one label.

    Several numbers are a list by their look. Elsewhere a separator may belong to a name (AC|DC), unless the parts are
    labels elsewhere: one of them alone, or each of them in another label; or unless it is sure that there are lists.
    """
    separated: dict[str, dict[str, set[str]]] = {separator: {} for separator in (*SEPARATORS, " ")}
    for spelling, text in texts.items():
        for separator in separated:
            if separator in text and len(parts := set(_cut(text, separator))) > 1:
                separated[separator][spelling] = parts
    alone = set(texts.values())
    uses = Counter(alone)
    for separator in SEPARATORS:
        for parts in separated[separator].values():
            uses.update(parts)

    def separates(separator: str, parts: set[str]) -> bool:
        if separator in "\t " or all(uses[part] > 1 for part in parts):
            return True
        return separator != "," and (bool(parts & alone) or all(map(NUMBER.fullmatch, parts)))

    found = {
        separator: spelling
        for separator, parts_of in separated.items()
        if (spelling := next((s for s, parts in parts_of.items() if separates(separator, parts)), None)) is not None
    }
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise DataError(
            f"{name}: labels are separated by {one!r} ({locate(first)}) and by {other!r} ({locate(second)}): use one "
            "separator"
        )
    if not found and is_sure:
        return next((separator for separator in SEPARATORS if separated[separator]), None)
    return next(iter(found), None)


def _cut(text: str, separator: str) -> list[str]:
    """Cut a text; blank parts are left out. Names have blanks: they separate numbers only."""
    if separator == " " and not all(map(NUMBER.fullmatch, text.split())):
        return [text]
    return [clean for part in text.split(separator) if (clean := clean_label(part))]


def _is_bracketed(text: str) -> bool:
    """Return whether a text is a list as programs write it: in brackets, with quotes, commas or numbers."""
    inner = text[1:-1].strip()
    if text[:1] + text[-1:] in ("[]", "{}"):
        return inner[:1] in ("'", '"') or "," in inner or bool(NUMBERS.fullmatch(inner) or NUMBER.fullmatch(inner))
    return text[:1] + text[-1:] == "()" and (inner[:1] in ("'", '"') or bool(NUMBERS.fullmatch(inner.rstrip(", "))))


def _parse_list(where: str, text: str) -> tuple[str, ...]:
    """Return the labels of a list in JSON, or as Python or NumPy write it. DataError if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        inner = text[1:-1].strip()
        if inner[0] not in "'\"":
            value = inner.split(",") if "," in inner else re.split(r"[\s;|]+", inner)
        elif _QUOTED.sub("", inner).strip(" \t,;|"):
            raise DataError(f'{where} has the label {text[:60]!r}, which is no list: write it as ["cat", "dog"]')
        else:
            value = [re.sub(r"\\(.)", r"\1", one or other) for one, other in _QUOTED.findall(inner)]
        value = [part for part in map(clean_label, value) if part]
    labels = parse_labels(where, value)
    assert isinstance(labels, tuple)
    return labels
