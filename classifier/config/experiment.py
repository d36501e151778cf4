"""The experiment: all settings of a run as immutable plain data, each with a dotted name.

A setting has the same name on the command line (`--optimizer.lr 0.1`), in a search space, in `result.json` and in
`experiment.yaml`. Its sections are in sections.py. This module imports no torch, so that `--help` is fast.
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
    SemiConfig,
    TrainConfig,
    WorkersConfig,
)
from classifier.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Experiment(Section):
    """All settings of a run. The same experiment, data, machine and number of workers give the same weights."""

    seed: NonNegativeInt = 0
    """Random seed of weight initialization, image order, augmentation and dropout."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    semi: SemiConfig = field(default_factory=SemiConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def views(self) -> int:
        """augment.views if the backbone is frozen, else 0: it has no effect otherwise."""
        return self.augment.views if self.model.freeze == "backbone" else 0

    @property
    def takes_steps(self) -> bool:
        """Whether anything is trained by gradients: a linear probe of one epoch (model.probe) is not."""
        return self.train.epochs > self.model.probe

    def get(self, dotted: str) -> Any:
        """Return the value of a setting. ConfigError if the name is unknown."""
        _check_name(dotted)
        return functools.reduce(getattr, dotted.split("."), self)

    def override(self, dotted: str, value: Any) -> Self:
        """Return a copy with one setting changed. ConfigError if its name, type or range is wrong."""
        _check_name(dotted)
        section, _, name = dotted.rpartition(".")
        if not section:
            return dataclasses.replace(self, **{name: value})
        return dataclasses.replace(self, **{section: dataclasses.replace(getattr(self, section), **{name: value})})

    def override_text(self, dotted: str, text: str) -> Self:
        """Like `override`, with the value as text from a command line: 'true', '0.1', 'none'."""
        _check_name(dotted)
        return self.override(dotted, parse_value(dotted, setting_names()[dotted], text))

    def override_all(self, changes: dict[str, Any]) -> Self:
        """Return a copy with several settings changed, by dotted name."""
        return functools.reduce(lambda e, item: e.override(*item), changes.items(), self)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as nested plain data, as in JSON and YAML files."""
        return _to_plain(self)

    @classmethod
    def from_dict(cls, nested: dict[str, Any], base: "Experiment | None" = None) -> "Experiment":
        """Create an experiment from nested or dotted settings; missing ones come from `base`, or from the defaults."""
        return (base or cls()).override_all(flatten(nested))

    def digest(self, changes: Mapping[str, Any] | None = None) -> str:
        """Return 16 hex digits that identify these settings, with `changes` by dotted name; equal settings share them.

        `changes` are checked as `override_all` checks them, but no other experiment is built. ConfigError as there.
        """
        settings = self.as_dict()
        for dotted, value in (changes or {}).items():
            _check_name(dotted)
            section, _, name = dotted.rpartition(".")
            value = validate(dotted, setting_names()[dotted], value)
            (settings[section] if section else settings)[name] = _to_plain(value)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def setting_names() -> dict[str, Any]:
    """Return the dotted name of every setting, with its annotated type."""
    names: dict[str, Any] = {}
    for name, hint in field_types(Experiment).items():
        if isinstance(hint, type) and issubclass(hint, Section):
            names.update({f"{name}.{inner}": inner_hint for inner, inner_hint in field_types(hint).items()})
        else:
            names[name] = hint
    return names


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """Turn {"optimizer": {"lr": 0.1}} into {"optimizer.lr": 0.1}; dotted names stay as they are."""
    if not isinstance(nested, dict):
        kind = type(nested).__name__
        raise ConfigError(f"an experiment must be a mapping of settings, not {kind}: {str(nested)[:60]!r}")
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
    by_field = {name.rpartition(".")[2]: name for name in names}
    hint = suggest(dotted, names) or suggest(by_field.get(dotted.rpartition(".")[2], dotted), names)
    raise ConfigError(f"{dotted[:100]}: unknown setting{hint}")


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value
