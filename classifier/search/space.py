"""What a search varies: a range or a list of values for settings, by dotted name, checked before any trial starts."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import parse_value
from classifier.errors import ConfigError
from classifier.models.catalogue import MODELS, ZOO


@dataclass(frozen=True)
class Choice:
    """One of `values`. `when` names settings and the values that they must have for this one to matter."""

    values: tuple[Any, ...]
    when: "Conditions" = ()

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values)) + _told(self.when)

    def plain(self) -> Any:
        """As a space file has it."""
        return list(self.values) if not self.when else {"values": list(self.values), "when": _plain(self.when)}


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`; `log` draws each order of magnitude alike, `whole` whole numbers alone."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    when: "Conditions" = ()

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}" + _told(self.when)

    def plain(self) -> Any:
        """As a space file has it."""
        ends = {"low": self.low, "high": self.high, "log": self.log}
        return ends | ({"when": _plain(self.when)} if self.when else {})


Conditions = tuple[tuple[str, tuple[Any, ...]], ...]
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
# What population-based training may change in the middle of a training.
_WHILE_TRAINING = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.clip",
    "augment.",
    "loss.smoothing",
    "loss.gamma",
    "model.dropout",
)

# Where a setting has an effect at all, in words and as a question: elsewhere it is drawn, left out, and that is said.
_MATTERS: dict[str, tuple[str, Callable[[Experiment], bool]]] = {
    "model.norm": ("in the project's own nets", lambda e: e.model.name in MODELS and e.model.name != "vit_tiny"),
    "model.stem": ("in torchvision's nets", lambda e: e.model.name in ZOO),
    "model.freeze_epochs": ("where model.freeze is backbone", lambda e: e.model.freeze == "backbone"),
    "optimizer.backbone_scale": ("with model.weights", lambda e: e.model.weights is not None),
    "loss.gamma": ("where loss.name is focal", lambda e: e.loss.name == "focal"),
    "augment.views": ("where model.freeze is backbone", lambda e: e.model.freeze == "backbone"),
    "augment.magnitude": ("with augment.randaugment", lambda e: bool(e.augment.randaugment)),
    "schedule.step_epochs": ("in the schedules step and plateau", lambda e: e.schedule.name in ("step", "plateau")),
    "schedule.step_factor": ("in the schedules step and plateau", lambda e: e.schedule.name in ("step", "plateau")),
}
_ALWAYS: tuple[str, Callable[[Experiment], bool]] = ("always", lambda _: True)


def default_space(experiment: Experiment, images: int) -> Space:
    """Learning rate, batch size, architecture, decay, augmentation and smoothing, around an experiment that trains on
    so many images; the experiment's own values lie in it.
    """
    rate, decay, batch = experiment.optimizer.lr, experiment.optimizer.weight_decay, experiment.data.batch
    names = dict.fromkeys((experiment.model.name, "resnet9_16", "resnet9_32", "cnn"))
    batches = dict.fromkeys((max(2, batch // 2), batch, min(batch * 2, images)))
    space: Space = {
        "optimizer.lr": Interval(rate / 10, rate * 3, log=True),
        "data.batch": Choice(tuple(sorted(batches))),
    }
    if not experiment.model.weights:  # weights fit one architecture
        space["model.name"] = Choice(tuple(names))
    space["optimizer.weight_decay"] = (
        Interval(decay / 10, decay * 10, log=True) if decay else Choice((0.0, 1e-3, 1e-2, 1e-1))
    )
    if not experiment.views:  # else trials share what the frozen backbone sees
        space["augment.strength"] = Interval(0.0, 2.0)
    space["loss.smoothing"] = Interval(0.0, max(0.2, experiment.loss.smoothing))
    if experiment.search.scheduler == "pbt":
        space = {name: values for name, values in space.items() if name.startswith(_WHILE_TRAINING)}
    return space


def trimmed(sample: dict[str, Any], space: Space, experiment: Experiment) -> dict[str, Any]:
    """What a sample changes: settings without effect, by `when` or by nature, are left out, and so is what was so."""
    sampled = experiment.override_all(sample)
    return {
        name: value
        for name, value in sample.items()
        if value != experiment.get(name)
        and _MATTERS.get(name, _ALWAYS)[1](sampled)
        and all(sampled.get(other) in values for other, values in (space[name].when if name in space else ()))
    }


def grid(space: Space) -> list[dict[str, Any]]:
    """Every combination of the values. ConfigError if a range has no end of values."""
    for name, values in space.items():
        if not isinstance(values, Choice):
            raise ConfigError(f"search.algorithm grid needs lists of values: {name} is a range, {values}")
    columns = [values.values for values in space.values() if isinstance(values, Choice)]
    return [dict(zip(space, row, strict=True)) for row in itertools.product(*columns)]


def conditions(space: Space) -> list[str]:
    """A sentence for each searched setting that has an effect in some trials alone."""
    return [f"{name} matters {_MATTERS[name][0]} and is left out elsewhere" for name in space if name in _MATTERS]


def _told(when: "Conditions") -> str:
    return "".join(f", where {name} is {' or '.join(map(str, values))}" for name, values in when)


def _plain(when: "Conditions") -> dict[str, Any]:
    return {name: list(values) for name, values in when}


def space_from(words: tuple[str, ...], file: dict[str, Any], experiment: Experiment, images: int) -> Space:
    """The search space of `search.vary` and of a space file's content; the default one where both are empty.

    A word is NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C. In a file, a name has a list of values, {values, when}
    or {low, high, log, when}. ConfigError names the setting and what is wrong with its range.
    """
    space: Space = {name: _from_plain(name, value) for name, value in _named(file).items()}
    space |= dict(_from_word(word) for word in words)
    space = space or default_space(experiment, images)
    for name, values in space.items():
        if name.startswith(_NOT_SEARCHED):
            raise ConfigError(f"{name} cannot be searched: its trials could not be compared")
        if experiment.search.scheduler == "pbt" and not name.startswith(_WHILE_TRAINING):
            raise ConfigError(
                f"{name} cannot be searched by search.scheduler pbt: it cannot change while training goes on"
            )
        ends = (
            values.values if isinstance(values, Choice) else (_number(values, values.low), _number(values, values.high))
        )
        for value in ends:
            experiment.override(name, value)
        for other, wanted in values.when:
            for value in wanted:
                experiment.override(other, value)
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
            name, {"low": parse_value(name, hint, low), "high": parse_value(name, hint, high), "log": bool(log)}
        )
    return name, _from_plain(name, [parse_value(name, hint, part) for part in text.split(",")])


def _from_plain(name: str, value: Any) -> Choice | Interval:
    _hint(name)
    when: Conditions = ()
    if isinstance(value, dict):
        value = dict(value)
        when = _conditions(name, value.pop("when", {}))
        value = value["values"] if value.keys() == {"values"} else value
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"the search space of {name} is empty: list at least one value")
        return Choice(tuple(dict.fromkeys(value)), when)
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
    return Interval(low, high, log=log, whole=whole, when=when)


def _named(file: Any) -> dict[str, Any]:
    """The ranges of a space file by dotted name; slices may be written as sections."""
    if not isinstance(file, dict):
        raise ConfigError(f"a search space is a mapping from settings to values, not {type(file).__name__}")
    names, named = setting_names(), {}
    for key, value in file.items():
        is_section = key not in names and any(name.startswith(f"{key}.") for name in names)
        named |= {f"{key}.{inner}": v for inner, v in value.items()} if is_section else {str(key): value}
    return named


def _conditions(name: str, when: Any) -> Conditions:
    if not isinstance(when, dict):
        raise ConfigError(f"the search space of {name}: `when` names settings, as in when: {{model.name: [vit_tiny]}}")
    return tuple((other, tuple(v) if isinstance(v, list) else (v,)) for other, v in when.items())


def _hint(name: str) -> Any:
    Experiment().get(name)  # refuses an unknown name, with the nearest
    return setting_names()[name]
