"""The command line, made from the dataclasses of settings.

A verb's flags are its own options and the settings of its sections, each spelled as the setting (`--optimizer.lr 0.1`).
The experiment file overrides the recipe, flags override both. Values are parsed by the settings themselves, so that a
bad one gives the same message wherever it comes from; tyro prints the help page.
"""

import dataclasses
import os
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from typing import Any

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import field_types, parse_value, split_values, suggest
from classifier.errors import ClassifierError, ConfigError, DivergedError
from jobs.cli.environment import setup
from jobs.cli.help import print_help
from jobs.cli.verb import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, Request, TrainingOptions, Verb


def main(verb: Verb, run: Callable[[Request], int | None], argv: Sequence[str] | None = None) -> typing.NoReturn:
    """Parse the command line, run the verb and exit with its code. A user error is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    setup()
    try:
        if "-h" in argv or "--help" in argv:
            print_help(verb)
            sys.stdout.flush()
            code = EXIT_DONE
        else:
            code = run(parse(verb, argv)) or EXIT_DONE
    except ClassifierError as error:
        print(f"{verb.name}: {error}", file=sys.stderr)
        code = EXIT_FAILED if isinstance(error, DivergedError) else EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"{verb.name}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has exited (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception:
        traceback.print_exc()
        code = EXIT_FAILED
    sys.exit(code)


def parse(verb: Verb, argv: Sequence[str]) -> Request:
    """Parse the arguments. ConfigError for an unknown flag, with the closest known one, or for a bad value."""
    flags, positionals = verb.flags, list(verb.positionals)
    option_types = field_types(verb.options)
    options: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if not positionals:
                raise ConfigError(f"unexpected argument {word!r}: settings are given as --name value")
            if typing.get_origin(option_types[positionals[0]]) is tuple:
                options[positionals[0]] = (*options.get(positionals[0], ()), word)
            else:
                options[positionals.pop(0)] = word
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in flags:
            raise ConfigError(f"--{name}: {_explain_unknown(verb, name)}")
        hint = flags[name]
        target = changes if name in setting_names() else options
        if typing.get_origin(hint) is tuple:
            values = [value] if equals else []
            while not equals and words and not words[0].startswith("--"):
                values.append(words.pop(0))
            if not values:
                raise ConfigError(f"--{name} needs at least one value")
            target[name] = (*target.get(name, ()), *(item for value in values for item in split_values(hint, value)))
        else:
            if not equals:
                if hint is bool and (not words or words[0].lower() not in ("true", "false")):
                    value = "true"
                elif not words or words[0].startswith("--"):
                    raise ConfigError(f"--{name} needs a value")
                else:
                    value = words.pop(0)
            target[name] = parse_value(name, hint, value)
    missing = [
        f.name
        for f in dataclasses.fields(verb.options)
        if f.name in verb.positionals and f.default is dataclasses.MISSING and f.name not in options
    ]
    if missing:
        raise ConfigError(f"{missing[0].upper()} is missing: see python jobs/{verb.name}.py --help for an example")
    request = Request(verb.options(**options), changes)
    # Refuse bad values before any work is done, and before torch is loaded.
    if isinstance(request.options, TrainingOptions) and not request.options.resume:
        request.experiment()
    else:
        Experiment().override_all(changes)
    return request


def _explain_unknown(verb: Verb, name: str) -> str:
    if name in setting_names():
        return f"{verb.name} does not take this setting"
    last = {flag.rpartition(".")[2]: flag for flag in verb.flags}
    near = suggest(name, verb.flags) or suggest(last.get(name.rpartition(".")[2], name), verb.flags)
    return "there is no such setting" + (near.replace("mean ", "mean --") or f"; see jobs/{verb.name}.py --help")
