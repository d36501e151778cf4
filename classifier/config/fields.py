"""Field types of settings: each setting is a field of a frozen dataclass with a type, a range and a help text.

Values are validated when a section is created. Text from a command line is parsed by the setting's type.
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
    """The closed interval that a number must lie in; `exclusive` excludes its lower end."""

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


# The similarity, from 0 to 1, at which one word is taken for a misspelling of another.
MIN_SIMILARITY = 0.6
# Characters of a wrong value that a message shows.
MAX_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of settings. Creating one validates its values: type, range, and no NaN."""

    section: ClassVar[str] = ""
    """The part of its settings' dotted names before the dot; empty for top-level settings."""

    def __post_init__(self) -> None:
        for name, hint in field_types(type(self)).items():
            dotted = f"{self.section}.{name}" if self.section else name
            object.__setattr__(self, name, validate(dotted, hint, getattr(self, name)))


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """Return `; did you mean X?` with the known word that is most similar, or an empty string if none is similar."""
    word = word[:100]  # the time grows with the square of its length
    ratios = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in known}
    best = max(ratios, key=ratios.__getitem__, default="")  # the first of equally similar ones
    return f"; did you mean {best}?" if ratios.get(best, 0.0) >= MIN_SIMILARITY else ""


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the annotated type of each field of a dataclass, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def validate(dotted: str, hint: Any, value: Any) -> Any:
    """Return the value, converted if needed (int to float, list to tuple). ConfigError on a wrong type or range."""
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
            choices = ", ".join(map(str, options))
            suggestion = suggest(value, map(str, options)) if isinstance(value, str) else ""
            raise ConfigError(f"{dotted} is {_brief(value)}: it must be one of {choices}{suggestion}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ConfigError(f"{dotted} is {_brief(value)}: it must be a list of strings")
        return tuple(validate(dotted, typing.get_args(hint)[0], item) for item in value)
    if isinstance(value, int) and abs(value) >= 2**63:  # Python may refuse even to print it
        raise ConfigError(f"{dotted} is too large a number")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kinds = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
        raise ConfigError(f"{dotted} is {_brief(value)}: it must be {kinds.get(hint.__name__, hint.__name__)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{dotted} is {value}: it must be a finite number")
    return value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def split_values(hint: Any, word: str) -> list[str]:
    """Split an argument for a tuple setting into its items: at commas if the items are options, else not at all."""
    is_options = typing.get_origin(typing.get_args(hint)[0]) is Literal
    return word.split(",") if is_options else [word]


def parse_value(dotted: str, hint: Any, text: str) -> Any:
    """Parse a command-line argument ('true', '0.1', 'none') by its type. Invalid text is returned unchanged."""
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
            return text  # `validate` will reject it
    return text
