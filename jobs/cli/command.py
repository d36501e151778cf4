"""The command line: made from the dataclasses of settings, and the only import of the CLI library.

A verb's flags are its own options and the settings of the slices that it names, each spelled as the setting
(`--optimizer.lr 0.1`). A recipe comes first, then an experiment file, then the flags. Words are read by the settings
themselves, so that a wrong one is refused in the same one sentence everywhere; tyro draws the help page.
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
from jobs.cli.verb import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISTAKE, ExperimentOptions, Request, Verb


def main(verb: Verb, run: Callable[[Request], int | None], argv: Sequence[str] | None = None) -> typing.NoReturn:
    """Read the command line, run the verb, and exit with its code. A user's mistake is one line on stderr."""
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
        code = EXIT_FAILED if isinstance(error, DivergedError) else EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"{verb.name}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception:
        traceback.print_exc()
        code = EXIT_FAILED
    sys.exit(code)


def parse(verb: Verb, argv: Sequence[str]) -> Request:
    """Words to a Request. ConfigError names an unknown flag, with the nearest right one, or a wrong value."""
    flags, places = verb.flags, list(verb.positionals)
    option_hints = field_types(verb.options)
    options: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if not places:
                raise ConfigError(f"{word!r} is not understood: settings are given as --name value")
            place = places[0]
            if typing.get_origin(option_hints[place]) is tuple:
                options[place] = (*options.get(place, ()), word)
            else:
                options[places.pop(0)] = word
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in flags:
            raise ConfigError(f"--{name}: {_unknown(verb, name)}")
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
        raise ConfigError(f"{missing[0].upper()} is missing: python jobs/{verb.name}.py --help shows an example")
    request = Request(verb.options(**options), changes)
    # Refuse wrong values before any work is done, and before torch is loaded.
    if isinstance(request.options, ExperimentOptions) and not request.options.resume:
        request.experiment()
    else:
        Experiment().override_all(changes)
    return request


def _unknown(verb: Verb, name: str) -> str:
    if name in setting_names():
        return f"{verb.name} does not take this setting"
    last = {flag.rpartition(".")[2]: flag for flag in verb.flags}
    near = suggest(name, verb.flags) or suggest(last.get(name.rpartition(".")[2], name), verb.flags)
    return "there is no such setting" + (near.replace("mean ", "mean --") or f"; see jobs/{verb.name}.py --help")
