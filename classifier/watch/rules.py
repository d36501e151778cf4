"""Rules of alerts, as a person writes them.

    QUANTITY > NUMBER [for TIME] [until < NUMBER] [every TIME]

    intruder > 0.9 for 2s                       the probability, smoothed, for two seconds without a break
    "cat or dog" >= 80% until < 60%             over when it falls below 60 %, not as soon as it is below 80 %
    not sure for 10s every 5min                 at most one alert in five minutes
    unlike anything seen > 0.8

The quantity is a class, in quotes if its name has `<`, `>` or quotes in it or is one of the others: `not sure` and
`unlike anything seen`, the smoothed share of frames of which the model says so; they need no number, which is 0.5 then.
NUMBER is a fraction, or has a %. TIME has a unit: ms, s, min or h. The parts after the number may come in any order.
"""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from classifier.config.fields import suggest
from classifier.errors import ConfigError, list_few
from classifier.watch.observer import NOT_SURE, UNLIKE

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_STATES = (NOT_SURE, UNLIKE)
_STATE = re.compile(rf"\s*({'|'.join(_STATES)})(?=\s|[<>]|$)")
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_PLAIN = re.compile(r"([^<>]*)")
_COMPARISON = re.compile(r"\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)?|\.\d+)(%?)(?=\s|$)")
_TIME = re.compile(r"\s*(for|every)\s+(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|min|h)(?=\s|$)")
_UNTIL = re.compile(r"\s*until(?=[\s<>])")
MAX_LENGTH = 500
EXAMPLE = "as in 'cat > 0.9 for 2s until < 0.7 every 60s'"


@dataclass(frozen=True)
class Condition:
    """A comparison with a number from 0 to 1."""

    operator: str
    limit: float

    @property
    def is_upward(self) -> bool:
        return self.operator.startswith(">")

    @property
    def is_inclusive(self) -> bool:
        return self.operator.endswith("=")

    def holds(self, value: float) -> bool:
        return bool(_OPERATORS[self.operator](value, self.limit))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an alert begins, and when it is over."""

    text: str
    index: int
    """Of the quantity, in `Observation.values`."""
    begin: Condition
    hold_seconds: float = 0.0
    """For as long `begin` has to hold."""
    until: Condition | None = None
    """When it is over; None: as soon as `begin` no longer holds."""
    every_seconds: float = 0.0
    """From one alert to the next, at least."""


def parse_rule(text: str, class_names: Sequence[str]) -> Rule:
    """Read a rule. ConfigError, a sentence, names the part that is wrong."""
    if len(text) > MAX_LENGTH:
        _refuse(text[:40] + "...", f"has more than {MAX_LENGTH} characters")
    name, rest, is_state = _split_name(text)
    if is_state:
        index = len(class_names) + _STATES.index(name)
    elif name in class_names:
        index = class_names.index(name)
    elif not name:
        _refuse(text, "names no class")
    else:
        hint = suggest(name, [*class_names, *_STATES]) or f": there are {list_few(class_names, 8)}"
        raise ConfigError(f"--alert {text!r}: the model has no class {name!r}{hint}")
    begin, rest = _read_comparison(text, rest)
    if begin is None:
        if not is_state:
            _refuse(text, "compares with no number")
        begin = Condition(">", 0.5)
    return Rule(text=text, index=index, begin=begin, **_read_clauses(text, rest, begin))


def _split_name(text: str) -> tuple[str, str, bool]:
    """Return the quantity's name, what follows it, and whether it is not a class."""
    if match := _QUOTED.match(text):
        return re.sub(r"\\(.)", r"\1", match[1]), text[match.end() :], False
    if match := _STATE.match(text):
        return match[1], text[match.end() :], True
    match = _PLAIN.match(text)
    assert match
    return match[1].strip(), text[match.end() :], False


def _read_comparison(text: str, rest: str) -> tuple[Condition | None, str]:
    match = _COMPARISON.match(rest)
    if not match:
        if rest.lstrip()[:1] in ("<", ">"):
            _refuse(text, f"has no number from 0 to 1 at {rest.strip()!r}")
        return None, rest
    limit = float(match[2]) / (100 if match[3] else 1)
    if limit > 1:
        _refuse(text, f"compares with {match[2]}{match[3]}, which is above 1: write {match[2]}% or a fraction")
    if (match[1], limit) in ((">", 1), ("<", 0)):
        _refuse(text, f"has a condition that never holds, {match[1]} {limit:g}")
    return Condition(match[1], limit), rest[match.end() :]


def _read_clauses(text: str, rest: str, begin: Condition) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while rest.strip():
        if match := _TIME.match(rest):
            key, value = f"{'hold' if match[1] == 'for' else 'every'}_seconds", float(match[2]) * _UNITS[match[3]]
            rest = rest[match.end() :]
        elif match := _UNTIL.match(rest):
            key = "until"
            value, rest = _read_comparison(text, rest[match.end() :])
            if value is None:
                _refuse(text, "has no comparison after until")
            _check_until(text, begin, value)
        else:
            _refuse(text, f"is not understood from {rest.strip()!r} on")
        if key in found:
            _refuse(text, f"says {'until' if key == 'until' else 'for' if key.startswith('hold') else 'every'} twice")
        found[key] = value
    return found


def _check_until(text: str, begin: Condition, until: Condition) -> None:
    """An alert that is over at once, or never, is a mistake; so is a value at which it begins and is over."""
    distance = begin.limit - until.limit if begin.is_upward else until.limit - begin.limit
    is_apart = distance > 0 or (distance == 0 and not (begin.is_inclusive and until.is_inclusive))
    if begin.is_upward == until.is_upward or not is_apart:
        way = f"<, of at most {begin.limit:g}" if begin.is_upward else f">, of at least {begin.limit:g}"
        _refuse(text, f"has to end by until {way}")


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigError(f"--alert {text!r} {why}: write a rule {EXAMPLE}")
