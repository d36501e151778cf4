"""Reading and writing experiment files (YAML or JSON)."""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from classifier.config.documents import read_bytes
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, RunError, in_short
from classifier.storage.atomic import check_format_version

FORMAT_VERSION = 1


_FLOAT_TAG, _STRING_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
# 1e-3 is a number; in YAML 1.1 it is text.
_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")


class _Loader(yaml.SafeLoader):
    """Reads plain data. Without aliases, by which a few lines can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # A plain or single-quoted scalar loses line separators at its ends.
        return self.represent_scalar(_STRING_TAG, text, style=None if text.isprintable() else '"')


_Loader.add_implicit_resolver(_FLOAT_TAG, *_EXPONENT)
_Dumper.add_implicit_resolver(_FLOAT_TAG, *_EXPONENT)
_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML or JSON file as plain data. ConfigError if it cannot be read."""
    try:
        return yaml.load(read_bytes(path, "give another file"), _Loader)  # noqa: S506 - a SafeLoader
    except RunError as error:
        raise ConfigError(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML or JSON: {in_short(error, 200)}") from None


def dump_yaml(document: Any) -> str:
    """Return plain data as YAML that `read_yaml` reads as the same data."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


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
    return dump_yaml(document)
