"""What a setting is: a field of a frozen dataclass with a type, a range and a sentence of help.

Values are checked when a slice is made. Text (from a command line) is read by the setting's own type.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Union

from classifier.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The closed interval that a number must lie in; `above` leaves the lower end out."""

    low: float
    high: float = math.inf
    exclusive: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.exclusive else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.exclusive else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
PositiveFloat = Annotated[float, Range(0, exclusive=True)]
NonNegativeFloat = Annotated[float, Range(0)]


# How alike two words must be, from 0 to 1, for one to be a misspelling of the other.
MIN_SIMILARITY = 0.6


@dataclass(frozen=True, kw_only=True)
class Section:
    """A noun's settings. Values are checked when it is made: type, range, and no NaN."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, hint in field_types(type(self)).items():
            dotted = f"{self.section}.{name}" if self.section else name
            object.__setattr__(self, name, validate(dotted, hint, getattr(self, name)))


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean X?` for a word that is nearly a known one, else the empty string."""
    ratios = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in known}
    found = max(ratios, key=ratios.__getitem__, default="")  # the first of those that are equally near
    return f"; did you mean {found}?" if ratios.get(found, 0.0) >= MIN_SIMILARITY else ""


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Each field of a dataclass, with its annotated type."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {f.name: found[f.name] for f in dataclasses.fields(cls)}


def validate(dotted: str, hint: Any, value: Any) -> Any:
    """The value, as its type wants it (an int becomes a float, a list a tuple), or ConfigError."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, limit = typing.get_args(hint)
        value = validate(dotted, inner, value)
        if value not in limit:
            raise ConfigError(f"{dotted} is {value}: it must be {limit}")
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return validate(dotted, inner, value)
    if origin is Literal:
        options = typing.get_args(hint)
        if value not in options or isinstance(value, bool):
            words = ", ".join(map(str, options))
            near = suggest(value, map(str, options)) if isinstance(value, str) else ""
            raise ConfigError(f"{dotted} is {value!r}: it must be one of {words}{near}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ConfigError(f"{dotted} is {value!r}: it must be a list of words")
        return tuple(validate(dotted, typing.get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kind = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
        raise ConfigError(f"{dotted} is {value!r}: it must be {kind.get(hint.__name__, hint.__name__)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{dotted} is {value}: it must be a finite number")
    return value


def split_values(hint: Any, word: str) -> list[str]:
    """The items of a tuple setting that one word on a command line stands for: a,b is two where items are options."""
    is_options = typing.get_origin(typing.get_args(hint)[0]) is Literal
    return word.split(",") if is_options else [word]


def parse_value(dotted: str, hint: Any, text: str) -> Any:
    """The value that a word on a command line stands for: 'true', '0.1', 'none'. A wrong word comes back as it is."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return parse_value(dotted, typing.get_args(hint)[0], text)
    if origin in (Union, types.UnionType):
        (inner,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return None if text.lower() == "none" else parse_value(dotted, inner, text)
    if origin is Literal:
        return next((option for option in typing.get_args(hint) if str(option) == text), text)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text  # `checked` refuses it, in the words that it has for every wrong value
    return text
