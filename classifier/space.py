"""What a search varies: a range or a list of values for settings, by dotted name, checked before any trial starts."""

import math
import re
from dataclasses import dataclass
from typing import Any

from classifier.config import Experiment, setting_names
from classifier.errors import ConfigError
from classifier.setting import from_text


@dataclass(frozen=True)
class Choice:
    """One of `values`."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`; `log` draws each order of magnitude alike, `whole` whole numbers alone."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


Space = dict[str, Choice | Interval]
# Trials must share their images, splits and budget, or their scores cannot be compared.
_NOT_SEARCHED = (
    "search.",
    "workers.",
    "checkpoint.",
    "data.path",
    "data.root",
    "data.split_seed",
    "data.validation",
    "data.test",
    "data.max_",
    "train.epochs",
    "train.minutes",
    "train.metric",
)


def default_space(experiment: Experiment, images: int) -> Space:
    """Learning rate, batch size and architecture, around an experiment that trains on so many images."""
    rate, batch = experiment.optimizer.lr, experiment.data.batch
    names = dict.fromkeys((experiment.model.name, "resnet9_16", "resnet9_32", "cnn"))
    batches = dict.fromkeys((max(2, batch // 2), batch, min(batch * 2, images)))
    space: Space = {
        "optimizer.lr": Interval(rate / 10, rate * 3, log=True),
        "data.batch": Choice(tuple(sorted(batches))),
    }
    if not experiment.model.weights:  # weights fit one architecture
        space["model.name"] = Choice(tuple(names))
    return space


def space_from(words: tuple[str, ...], file: dict[str, Any], experiment: Experiment, images: int) -> Space:
    """The search space of `search.vary` and of a space file's content; the default one where both are empty.

    A word is NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C. In a file, a name has a list of values or
    {low, high, log}. ConfigError names the setting and what is wrong with its range.
    """
    space: Space = {name: _from_plain(name, value) for name, value in file.items()}
    space |= dict(_from_word(word) for word in words)
    space = space or default_space(experiment, images)
    for name, values in space.items():
        if name.startswith(_NOT_SEARCHED):
            raise ConfigError(f"{name} cannot be searched: its trials could not be compared")
        ends = (
            values.values if isinstance(values, Choice) else (_number(values, values.low), _number(values, values.high))
        )
        for value in ends:
            experiment.override(name, value)
    return space


def _number(interval: Interval, value: float) -> float | int:
    return int(value) if interval.whole else value


def _from_word(word: str) -> tuple[str, Choice | Interval]:
    name, equals, text = word.partition("=")
    hint = _hint(name)
    if not equals or not text:
        raise ConfigError(f"search.vary {word!r}: write {name}=LOW..HIGH, {name}=LOW..HIGH:log or {name}=A,B,C")
    if found := re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text):
        low, high, log = found.groups()
        return name, _from_plain(
            name, {"low": from_text(name, hint, low), "high": from_text(name, hint, high), "log": bool(log)}
        )
    return name, _from_plain(name, [from_text(name, hint, part) for part in text.split(",")])


def _from_plain(name: str, value: Any) -> Choice | Interval:
    _hint(name)
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"the search space of {name} is empty: list at least one value")
        return Choice(tuple(dict.fromkeys(value)))
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        raise ConfigError(f"the search space of {name} must be a list of values, or low, high and (if wished) log")
    low, high, log = value["low"], value["high"], value.get("log", False)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in (low, high))
    if not numbers or not isinstance(log, bool):
        raise ConfigError(f"the search space of {name} must run from a number to a number, not {low!r} to {high!r}")
    if low >= high:
        raise ConfigError(f"the search space of {name} is empty: {low:g} is not below {high:g}")
    if log and low <= 0:
        raise ConfigError(f"the search space of {name} is logarithmic: {low:g} must be above 0")
    whole = isinstance(low, int) and isinstance(high, int) and "int" in str(_hint(name))
    return Interval(low, high, log=log, whole=whole)


def _hint(name: str) -> Any:
    Experiment().get(name)  # refuses an unknown name, with the nearest
    return setting_names()[name]
