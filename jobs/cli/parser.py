"""The arguments of a verb: argparse parses them and prints the help page, both from the dataclasses of settings.

Values are parsed by the settings themselves, so that a bad one gives the same message wherever it comes from.
"""

import argparse
import dataclasses
import functools
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn

import docstring_parser

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import field_types, parse_value, split_values, suggest
from classifier.errors import ConfigError

from .environment import command
from .verb import Request, Verb

SEED_HELP = "Random seed of weights, image order, augmentation and dropout."
HELP_WIDTH = 80
# Column where the explanation of a flag starts.
HELP_COLUMN = 26
# More choices than this are listed in the explanation instead of beside the flag.
MAX_CHOICES_LENGTH = 24


def parse(verb: Verb, argv: Sequence[str]) -> Request:
    """Parse the arguments. ConfigError for an unknown flag, with the closest known one, or for a bad value."""
    parser = _Parser(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS)
    option_types = field_types(verb.options)
    for name in verb.positionals:
        is_list = typing.get_origin(option_types[name]) is tuple
        parser.add_argument(name, nargs="*" if is_list else "?")
    repeated = {field.name for field in dataclasses.fields(verb.options) if field.metadata.get("repeated")}
    for name, hint in verb.flags.items():
        parse_one = functools.partial(parse_value, name, hint)
        if typing.get_origin(hint) is tuple:
            split = functools.partial(split_values, hint)
            # With a single value, what follows it may be a positional argument.
            count = 1 if name in repeated else "+"
            parser.add_argument(f"--{name}", dest=name, type=split, nargs=count, action="extend")
        else:
            parser.add_argument(f"--{name}", dest=name, type=parse_one)
    parsed = vars(parser.parse_intermixed_args(list(_normalize(verb, argv))))
    for name, hint in verb.flags.items():
        if name in parsed and typing.get_origin(hint) is tuple:
            parsed[name] = tuple(item for items in parsed[name] for item in items)
    for name in verb.positionals:
        if parsed.get(name) in (None, []):  # not given
            parsed.pop(name, None)
        elif isinstance(parsed[name], list):
            parsed[name] = tuple(parsed[name])
    for field in dataclasses.fields(verb.options):
        if field.name in verb.positionals and field.default is dataclasses.MISSING and field.name not in parsed:
            raise ConfigError(f"{field.name.upper()} is missing: see {command(verb.name)} --help for an example")
    changes = {name: value for name, value in parsed.items() if name in verb.setting_flags}
    if path := parsed.get("path"):
        if changes.get("data.path", path) != path:
            raise ConfigError(f"PATH {path} and --data.path {changes['data.path']} are different: give one of them")
        changes["data.path"] = path
    return Request(verb.options(**{name: value for name, value in parsed.items() if name not in changes}), changes)


def _normalize(verb: Verb, argv: Sequence[str]) -> Iterator[str]:
    """The arguments with flags as settings are spelled, and with a value for each boolean flag."""
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            yield word
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in verb.flags:
            raise ConfigError(f"--{name}: {_explain_unknown(verb, name)}")
        if verb.flags[name] is bool and not equals:
            has_value = bool(words) and words[0].lower() in ("true", "false")
            equals, value = "=", words.pop(0) if has_value else "true"
        yield f"--{name}{equals}{value}"


def _explain_unknown(verb: Verb, name: str) -> str:
    if name in setting_names():
        return f"{verb.name} does not take this setting"
    if name == "data" and "data.path" in verb.flags:
        return "there is no such setting; did you mean --data.path?"
    last = {flag.rpartition(".")[2]: flag for flag in verb.flags}
    near = suggest(name, verb.flags) or suggest(last.get(name.rpartition(".")[2], name), verb.flags)
    return "there is no such setting" + (near.replace("mean ", "mean --") or f"; see {command(verb.name)} --help-all")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError instead of exiting: a user error is one line without a usage."""
        if message.endswith(("expected one argument", "expected at least one argument")):
            count = "a value" if message.endswith("expected one argument") else "at least one value"
            raise ConfigError(f"{message.split()[1].rstrip(':')} needs {count}")
        if message.startswith("unrecognized arguments: "):
            word = message.partition(": ")[2].split()[0]
            raise ConfigError(f"unexpected argument {word!r}: settings are given as --name value")
        raise ConfigError(message)


def format_help(verb: Verb, *, show_all: bool = False) -> str:
    """The help page: positional arguments, the verb's own options and its common settings, or all of its settings."""
    width = min(HELP_WIDTH, shutil.get_terminal_size((HELP_WIDTH, 24)).columns)
    fields = {field.name: field for field in dataclasses.fields(verb.options)}
    optional = {name for name in verb.positionals if fields[name].default is not dataclasses.MISSING}
    usage = [f"[{name.upper()}]" if name in optional else name.upper() for name in verb.positionals]
    if usage and typing.get_origin(field_types(verb.options)[verb.positionals[-1]]) is tuple:
        usage[-1] += " ..."
    page = [f"usage: {' '.join([command(verb.name), *usage, '[--SETTING VALUE ...]'])}", "", verb.summary, ""]
    page += ["examples:", *_format_examples(verb)]
    texts = _help_texts(verb.options)
    if verb.positionals:
        rows = [(name.upper(), fields[name].metadata["help"]) for name in verb.positionals]
        page += ["", "arguments:", *_format_rows(rows, width)]
    shown = verb.setting_flags if show_all else {name: verb.setting_flags[name] for name in verb.common}
    defaults = Experiment()
    settings = {name: _setting_row(name, hint, defaults) for name, hint in shown.items()}
    hints = {
        name: typing.get_args(hint)[0] if fields[name].metadata.get("repeated") else hint
        for name, hint in verb.own_flags.items()
    }
    own = [_flag_row(name, hint, fields[name].default, texts[name]) for name, hint in hints.items()]
    if show_all:
        page += ["", "options:", *_format_rows(own, width)]
        for section in dict.fromkeys(name.rpartition(".")[0] for name in settings):
            rows = [row for name, row in settings.items() if name.rpartition(".")[0] == section]
            page += ["", f"settings of {section}:" if section else "seed:", *_format_rows(rows, width)]
    else:
        if verb.common:
            page += ["", "most used:", *_format_rows([settings[name] for name in verb.common], width)]
        page += ["", "options:", *_format_rows(own, width)]
        if hidden := len(verb.setting_flags) - len(verb.common):
            page += ["", f"{hidden} more settings: {command(verb.name)} --help-all"]
    return "\n".join(page)


def _format_examples(verb: Verb) -> Iterator[str]:
    """The examples as command lines, with their comments in a column."""
    lines = [example.partition("#") for example in verb.examples]
    column = max((len(arguments.strip()) for arguments, mark, _ in lines if mark), default=0)
    for arguments, mark, comment in lines:
        line = f"  {command(verb.name)} {arguments.strip()}"
        yield f"{line}{'':{column - len(arguments.strip())}}  # {comment.strip()}" if mark else line.rstrip()


def _setting_row(name: str, hint: Any, defaults: Experiment) -> tuple[str, str]:
    section, _, field = name.rpartition(".")
    text = _help_texts(type(getattr(defaults, section)))[field] if section else SEED_HELP
    return _flag_row(name, hint, defaults.get(name), text)


def _flag_row(name: str, hint: Any, default: Any, text: str) -> tuple[str, str]:
    """A flag with its value's name, and its explanation with its choices and default."""
    value, choices = _describe_type(hint)
    if choices:
        text += f" One of {choices}."
    if default not in (None, (), "", False) and default is not dataclasses.MISSING:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text += f" (default: {shown.lower() if default is True else shown})"
    return f"--{name} {value}".rstrip(), text


def _describe_type(hint: Any) -> tuple[str, str]:
    """The name of a setting's value, and its choices where they need more room than the name has."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        (hint,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _describe_type(hint)
    if origin is typing.Annotated:
        return _describe_type(typing.get_args(hint)[0])
    if origin is tuple:
        value, choices = _describe_type(typing.get_args(hint)[0])
        return f"{value} ...", choices
    if origin is Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        beside = f"{{{','.join(choices)}}}"
        return (beside, "") if len(beside) <= MAX_CHOICES_LENGTH else ("NAME", ", ".join(choices))
    return {bool: "", int: "N", float: "NUMBER", str: "TEXT"}[hint], ""


@functools.cache
def _help_texts(section: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, in one paragraph."""
    documented = [cls for cls in reversed(section.__mro__) if dataclasses.is_dataclass(cls)]
    return {
        param.arg_name: " ".join((param.description or "").split())
        for cls in documented
        for param in docstring_parser.parse_from_object(cls).params
    }


def _format_rows(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Lines of a two-column table; a long flag stands on a line of its own. No word is broken."""
    wrap = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
    for flag, text in rows:
        lines = wrap(text, width - HELP_COLUMN)
        first = f"  {flag}"
        if len(first) > HELP_COLUMN - 2:
            yield first
        else:
            yield f"{first:<{HELP_COLUMN}}{lines.pop(0)}" if lines else first
        yield from (f"{'':{HELP_COLUMN}}{line}" for line in lines)
