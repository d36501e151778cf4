"""Search spaces: a range or a list of values for each setting, by dotted name, validated before any trial starts."""

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import parse_value, validate
from classifier.errors import ConfigError
from classifier.models.catalogue import MODELS, ZOO
from classifier.models.installed_weights import list_installed


@dataclass(frozen=True)
class Choice:
    """One of `values`. `when`: the values that other settings must have for this setting to have an effect."""

    values: tuple[Any, ...]
    when: "Conditions" = ()

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values)) + _describe_when(self.when)

    def to_plain(self) -> Any:
        """Return the values as in a space file."""
        return (
            list(self.values) if not self.when else {"values": list(self.values), "when": _plain_conditions(self.when)}
        )


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`, uniform or, with `log`, log-uniform. `when`: as in Choice."""

    low: float
    high: float
    log: bool = False
    is_integer: bool = False
    when: "Conditions" = ()

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}" + _describe_when(self.when)

    def to_plain(self) -> Any:
        """Return the range as in a space file."""
        plain = {"low": self.low, "high": self.high, "log": self.log}
        return plain | ({"when": _plain_conditions(self.when)} if self.when else {})


Conditions = tuple[tuple[str, tuple[Any, ...]], ...]
Space = dict[str, Choice | Interval]
# Trials must share their images, splits and budget, or their scores cannot be compared.
_FIXED_SETTINGS = (
    "search.",
    "workers.",
    "checkpoint.",
    "data.path",
    "data.root",
    "data.split_",
    "data.validation",
    "data.test",
    "data.max_",
    "train.epochs",
    "train.minutes",
    "train.metric",
)
# What population-based training can change during a training.
_PBT_SETTINGS = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.clip",
    "augment.",
    "loss.smoothing",
    "loss.gamma",
    "model.dropout",
)

# When a setting has an effect, in words and as a predicate. It is sampled anyway, and dropped where it has none.
_EFFECTIVE_IF: dict[str, tuple[str, Callable[[Experiment], bool]]] = {
    "model.norm": ("for the project's own networks", lambda e: e.model.name in MODELS and e.model.name != "vit_tiny"),
    "model.stem": ("for torchvision's networks", lambda e: e.model.name in ZOO),
    "model.freeze_epochs": ("if model.freeze is backbone", lambda e: e.model.freeze == "backbone"),
    "optimizer.backbone_scale": (
        "with model.weights, without optimizer.layer_decay",
        lambda e: e.model.weights is not None and e.optimizer.layer_decay is None,
    ),
    "optimizer.layer_decay": (
        "where the backbone is trained",
        lambda e: e.model.freeze != "backbone" or e.model.freeze_epochs is not None,
    ),
    "loss.gamma": ("if loss.name is focal", lambda e: e.loss.name == "focal"),
    "loss.gamma_on": ("if loss.name is asymmetric", lambda e: e.loss.name == "asymmetric"),
    "loss.gamma_off": ("if loss.name is asymmetric", lambda e: e.loss.name == "asymmetric"),
    "loss.clip": ("if loss.name is asymmetric", lambda e: e.loss.name == "asymmetric"),
    "augment.views": ("if model.freeze is backbone", lambda e: e.model.freeze == "backbone"),
    "augment.magnitude": ("with augment.randaugment", lambda e: bool(e.augment.randaugment)),
    "schedule.step_epochs": ("for the schedules step and plateau", lambda e: e.schedule.name in ("step", "plateau")),
    "schedule.step_factor": ("for the schedules step and plateau", lambda e: e.schedule.name in ("step", "plateau")),
}
# None: optimizer.backbone_scale, one rate for all layers but the head.
_LAYER_DECAYS = (None, 0.65, 0.8, 0.9)
_ALWAYS: tuple[str, Callable[[Experiment], bool]] = ("always", lambda _: True)


def can_vary_model(experiment: Experiment) -> bool:
    """Return whether any architecture can be trained in this experiment: pretrained weights fit one only, and not all
    have stochastic depth or accept images of several sizes.
    """
    model, schedule = experiment.model, experiment.schedule
    return not model.weights and not model.drop_path and schedule.size_from == schedule.size_to == 1


def list_architectures(experiment: Experiment) -> tuple[str, ...]:
    """Return the model of the experiment, then others that can be trained in it as it is.

    Beside a backbone whose weights are installed these are the other installed ones.
    """
    name, others = experiment.model.name, ()
    if can_vary_model(experiment):
        others = ("resnet9_16", "resnet9_32", "cnn")
    elif experiment.model.weights == "imagenet" and name in (installed := list_installed()):
        others = installed
    return tuple(dict.fromkeys((name, *others)))


def default_space(experiment: Experiment, images: int) -> Space:
    """Return learning rate, batch size, architecture, weight decay, augmentation and label smoothing around the
    experiment's own values, which the space contains; where pretrained weights are trained, also how.

    images: size of the training split.
    """
    rate, decay, batch = experiment.optimizer.lr, experiment.optimizer.weight_decay, experiment.data.batch
    model = experiment.model
    names = list_architectures(experiment)
    batches = dict.fromkeys((max(2, batch // 2), batch, min(batch * 2, images)))
    space: Space = {
        "optimizer.lr": Interval(rate / 10, rate * 3, log=True),
        "data.batch": Choice(tuple(sorted(batches))),
    }
    if len(names) > 1:
        space["model.name"] = Choice(names)
    if model.weights and model.freeze != "backbone":
        space["model.freeze"] = Choice(("none", "statistics", "early"))
        space["optimizer.layer_decay"] = Choice(
            tuple(dict.fromkeys((experiment.optimizer.layer_decay, *_LAYER_DECAYS)))
        )
    space["optimizer.weight_decay"] = (
        Interval(decay / 10, decay * 10, log=True) if decay else Choice((0.0, 1e-3, 1e-2, 1e-1))
    )
    if not experiment.views:  # else trials share the features of the frozen backbone
        space["augment.strength"] = Interval(0.0, 2.0)
    space["loss.smoothing"] = Interval(0.0, max(0.2, experiment.loss.smoothing))
    if experiment.search.scheduler == "pbt":
        space = {name: values for name, values in space.items() if name.startswith(_PBT_SETTINGS)}
    return space


def effective_changes(sample: dict[str, Any], space: Space, experiment: Experiment) -> dict[str, Any]:
    """Return what a sample changes in the experiment, without settings that have no effect in it."""
    sampled = experiment.override_all(sample)
    return {
        name: value
        for name, value in sample.items()
        if value != experiment.get(name)
        and _EFFECTIVE_IF.get(name, _ALWAYS)[1](sampled)
        and all(sampled.get(other) in values for other, values in (space[name].when if name in space else ()))
    }


def expand_grid(space: Space) -> list[dict[str, Any]]:
    """Return every combination of the values. ConfigError for an Interval, which has no list of values."""
    for name, values in space.items():
        if not isinstance(values, Choice):
            raise ConfigError(f"search.algorithm grid needs lists of values: {name} is a range, {values}")
    columns = [values.values for values in space.values() if isinstance(values, Choice)]
    return [dict(zip(space, row, strict=True)) for row in itertools.product(*columns)]


def describe_conditions(space: Space) -> list[str]:
    """Return a sentence for each searched setting that has an effect only in some trials."""
    return [f"{name} has an effect only {_EFFECTIVE_IF[name][0]}" for name in space if name in _EFFECTIVE_IF]


def describe_values(space: Space) -> Iterator[str]:
    """Yield a line for each setting, with its values."""
    return (f"  {name:<22} {values}" for name, values in space.items())


def _describe_when(when: "Conditions") -> str:
    return "".join(f", if {name} is {' or '.join(map(str, values))}" for name, values in when)


def _plain_conditions(when: "Conditions") -> dict[str, Any]:
    return {name: list(values) for name, values in when}


def parse_space(words: tuple[str, ...], space_file: dict[str, Any], experiment: Experiment, images: int) -> Space:
    """Parse the search space of search.vary (words) and of a space file; the default space if both are empty.

    A word is NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C. In a file, a name has a list of values, {values, when}
    or {low, high, log, when}. ConfigError for a setting that cannot be searched, or a bad range.
    """
    space: Space = {name: _parse_range(name, value) for name, value in _by_dotted_name(space_file).items()}
    space |= dict(_parse_word(word) for word in words)
    space = space or default_space(experiment, images)
    for name, values in space.items():
        if name.startswith(_FIXED_SETTINGS):
            raise ConfigError(f"{name} cannot be searched: trials with different values could not be compared")
        if experiment.search.scheduler == "pbt" and not name.startswith(_PBT_SETTINGS):
            raise ConfigError(f"{name} cannot be searched by search.scheduler pbt: it cannot change during training")
        is_choice = isinstance(values, Choice)
        to_check = values.values if is_choice else (_number(values, values.low), _number(values, values.high))
        for value in to_check:
            experiment.override(name, value)
        for other, required in values.when:
            for value in required:
                experiment.override(other, value)
    return space


def _number(interval: Interval, value: float) -> float | int:
    return int(value) if interval.is_integer else value


def _parse_word(word: str) -> tuple[str, Choice | Interval]:
    name, equals, text = word.partition("=")
    hint = _type_of(name)
    if not equals or not text:
        raise ConfigError(f"search.vary {word!r}: write {name}=LOW..HIGH, {name}=LOW..HIGH:log or {name}=A,B,C")
    if match := re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text):
        low, high, log = match.groups()
        return name, _parse_range(
            name, {"low": parse_value(name, hint, low), "high": parse_value(name, hint, high), "log": bool(log)}
        )
    return name, _parse_range(name, [parse_value(name, hint, part) for part in text.split(",")])


def _parse_range(name: str, value: Any) -> Choice | Interval:
    _type_of(name)
    when: Conditions = ()
    if isinstance(value, dict):
        value = dict(value)
        when = _parse_conditions(name, value.pop("when", {}))
        value = value["values"] if value.keys() == {"values"} else value
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"the search space of {name} is empty: list at least one value")
        checked = [validate(name, _type_of(name), item) for item in value]
        hashable = [one if isinstance(item, list) else item for item, one in zip(value, checked, strict=True)]
        return Choice(tuple(dict.fromkeys(hashable)), when)
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        raise ConfigError(f"the search space of {name} must be a list of values, or low, high and optionally log")
    low, high, log = value["low"], value["high"], value.get("log", False)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in (low, high))
    if not numbers or not isinstance(log, bool):
        raise ConfigError(f"the search space of {name} must range from a number to a number, not {low!r} to {high!r}")
    if low >= high:
        raise ConfigError(f"the search space of {name} is empty: low {low:g} is not below high {high:g}")
    if log and low <= 0:
        raise ConfigError(f"the search space of {name} is logarithmic: low {low:g} must be above 0")
    is_integer = isinstance(low, int) and isinstance(high, int) and "int" in str(_type_of(name))
    return Interval(low, high, log=log, is_integer=is_integer, when=when)


def _by_dotted_name(file: Any) -> dict[str, Any]:
    """Return the entries of a space file by dotted name; they may also be nested in sections."""
    if not isinstance(file, dict):
        raise ConfigError(f"a search space must be a mapping from settings to values, not {type(file).__name__}")
    names, entries = setting_names(), {}
    for key, value in file.items():
        is_section = key not in names and any(name.startswith(f"{key}.") for name in names)
        if is_section and not isinstance(value, dict):
            raise ConfigError(
                f"{key} is a section of settings: its search space must be a mapping from settings to values"
            )
        entries |= {f"{key}.{inner}": v for inner, v in value.items()} if is_section else {str(key): value}
    return entries


def _parse_conditions(name: str, when: Any) -> Conditions:
    if not isinstance(when, dict):
        raise ConfigError(
            f"the search space of {name}: `when` must map settings to values, such as when: {{model.name: [vit_tiny]}}"
        )
    return tuple((other, tuple(v) if isinstance(v, list) else (v,)) for other, v in when.items())


def _type_of(name: str) -> Any:
    Experiment().get(name)  # ConfigError for an unknown name, with the nearest one
    return setting_names()[name]
