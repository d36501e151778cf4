"""The experiment: every setting of a run as frozen plain data, each with one dotted name.

`optimizer.lr` is spelled alike on the command line (`--optimizer.lr 0.1`), in a search space, in
`result.json` and in `experiment.yaml`. The slices are in slices.py. This module imports no torch, so that `--help`
answers at once.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from classifier.config.fields import NonNegativeInt, Section, field_types, parse_value, suggest, validate
from classifier.config.sections import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SearchConfig,
    TrainConfig,
    WorkersConfig,
)
from classifier.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Experiment(Section):
    """All that decides a run. Equal experiments on equal data, machine and worker count give equal weights."""

    seed: NonNegativeInt = 0
    """Seeds the weights, the order of the images, augmentation and dropout."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def views(self) -> int:
        """augment.views, where a frozen backbone gives it an effect; else 0."""
        return self.augment.views if self.model.freeze == "backbone" else 0

    def get(self, dotted: str) -> Any:
        """The value of one setting. ConfigError if there is no such name."""
        _check_name(dotted)
        return functools.reduce(getattr, dotted.split("."), self)

    def override(self, dotted: str, value: Any) -> Self:
        """A copy with one setting changed. ConfigError on an unknown name, a wrong type or a value out of range."""
        _check_name(dotted)
        noun, _, name = dotted.rpartition(".")
        if not noun:
            return dataclasses.replace(self, **{name: value})
        return dataclasses.replace(self, **{noun: dataclasses.replace(getattr(self, noun), **{name: value})})

    def override_text(self, dotted: str, text: str) -> Self:
        """`override` with a value as it is typed: 'true', '0.1', 'none'."""
        _check_name(dotted)
        return self.override(dotted, parse_value(dotted, setting_names()[dotted], text))

    def override_all(self, changes: dict[str, Any]) -> Self:
        """A copy with several settings changed, by dotted name."""
        return functools.reduce(lambda e, item: e.override(*item), changes.items(), self)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, as it is saved in JSON and YAML."""
        return _plain(self)

    @classmethod
    def from_dict(cls, nested: dict[str, Any], base: "Experiment | None" = None) -> "Experiment":
        """The inverse of as_dict; what is missing is taken from `base`, or from the defaults."""
        return (base or cls()).override_all(flatten(nested))

    def digest(self, changes: Mapping[str, Any] | None = None) -> str:
        """Return 16 hex digits that identify these settings, with `changes` by dotted name; equal settings share them.

        `changes` are checked as `override_all` checks them, but no other experiment is built. ConfigError as there.
        """
        settings = self.as_dict()
        for dotted, value in (changes or {}).items():
            _check_name(dotted)
            section, _, name = dotted.rpartition(".")
            (settings[section] if section else settings)[name] = _plain(
                validate(dotted, setting_names()[dotted], value)
            )
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def setting_names() -> dict[str, Any]:
    """Every dotted name, with its annotated type."""
    names: dict[str, Any] = {}
    for name, hint in field_types(Experiment).items():
        if isinstance(hint, type) and issubclass(hint, Section):
            names.update({f"{name}.{inner}": inner_hint for inner, inner_hint in field_types(hint).items()})
        else:
            names[name] = hint
    return names


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """{"optimizer": {"lr": 0.1}} and {"optimizer.lr": 0.1} alike become {"optimizer.lr": 0.1}."""
    if not isinstance(nested, dict):
        raise ConfigError(f"an experiment is a mapping of settings, not {type(nested).__name__}: {str(nested)[:60]!r}")
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[str(key)] = value
    return flat


def _check_name(dotted: str) -> None:
    names = setting_names()
    if dotted in names:
        return
    last = {name.rpartition(".")[2]: name for name in names}
    near = suggest(dotted, names) or suggest(last.get(dotted.rpartition(".")[2], dotted), names)
    raise ConfigError(f"{dotted}: there is no such setting{near}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value
