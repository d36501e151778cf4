"""Reading and writing experiment files (YAML or JSON)."""

import re
from pathlib import Path
from typing import Any

import yaml

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, in_short
from classifier.storage.atomic import check_format_version

FORMAT_VERSION = 1


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number; in YAML 1.1 it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML or JSON file as plain data. ConfigError if it cannot be read."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML or JSON: {in_short(error, 200)}") from None


def read_experiment(path: str | Path, base: Experiment | None = None) -> Experiment:
    """Read an experiment file (YAML or JSON) on top of `base`. ConfigError names the file and the wrong setting."""
    nested = read_yaml(path)
    if isinstance(nested, dict):
        version = nested.pop("format_version", FORMAT_VERSION)
        check_format_version({"format_version": version}, Path(path), FORMAT_VERSION)
    try:
        return Experiment.from_dict(nested if nested is not None else {}, base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def dump_experiment(experiment: Experiment) -> str:
    """Return the whole experiment as YAML, for `read_experiment`."""
    document = {"format_version": FORMAT_VERSION} | experiment.as_dict()
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
