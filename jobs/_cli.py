"""The command line: made from the dataclasses of settings, and the only import of the CLI library.

A verb's flags are its own options and the settings of the slices that it names, each spelled as the setting
(`--optimizer.lr 0.1`). A recipe comes first, then an experiment file, then the flags. Words are read by the settings
themselves, so that a wrong one is refused in the same one sentence everywhere; tyro draws the help page.
"""

import dataclasses
import os
import signal
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import Slice, closest, from_text, hints, words_of
from classifier.config.files import read_experiment
from classifier.config.recipes import recipe, recipe_for
from classifier.errors import ClassifierError, ConfigError, DivergedError

EXIT_DONE, EXIT_FAILED, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 1, 2, 130
# What a newcomer sets first stands first on the page.
_SEED_HELP = "Seeds the weights, the order of the images, augmentation and dropout."
COMMON = (
    "data.path",
    "recipe",
    "search.trials",
    "search.minutes",
    "train.epochs",
    "model.name",
    "data.batch",
    "optimizer.lr",
    "workers.count",
    "dry_run",
)
SLICES = ("data", "model", "train", "optimizer", "augment", "schedule", "loss", "checkpoint", "workers")


@dataclass(frozen=True, kw_only=True)
class Options(Slice):
    """What every verb takes beside its settings."""

    name: str | None = None
    """The run's name; its folder is OUT/NAME. Not set: verb, data set and time."""
    out: str = "runs"
    """Where run folders lie."""


@dataclass(frozen=True, kw_only=True)
class BeginningOptions(Options):
    """What a verb takes that begins with an experiment."""

    recipe: str | None = None
    """Named experiment to begin with. Not set: the one that fits the data set."""
    experiment: str | None = None
    """YAML or JSON file of settings (best.yaml, experiment.yaml), over the recipe."""


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(BeginningOptions):
    """What a verb takes that trains."""

    resume: str | None = None
    """Go on with this earlier run; takes only --workers.* and a larger --train.epochs."""
    storage: str | None = None
    """Where a copy of the run is kept, which outlives this machine: s3://bucket/runs, gs://..., or a shared path."""
    dry_run: bool = False
    """Show data, shapes, memory and one step, then stop."""


def positional(help_: str, **kwargs: Any) -> Any:
    """A field of a verb's options that is given by its place, without a flag."""
    return dataclasses.field(metadata={"positional": True, "help": help_}, **kwargs)


@dataclass(frozen=True)
class Verb:
    """One command: its story in a sentence, examples, its own options and the slices of settings that it takes."""

    name: str
    summary: str
    examples: tuple[str, ...]
    options: type[Slice]
    slices: tuple[str, ...] = ()

    @property
    def flags(self) -> dict[str, Any]:
        """Every flag with its type, in the order of the help page."""
        mine = {name: hint for name, hint in hints(self.options).items() if name not in self.positionals}
        # `seed` is the one setting outside a slice.
        nouns = (*self.slices, "seed") if self.slices else ()
        return mine | {n: hint for noun in nouns for n, hint in setting_names().items() if n.partition(".")[0] == noun}

    @property
    def positionals(self) -> list[str]:
        return [f.name for f in dataclasses.fields(self.options) if f.metadata.get("positional")]


@dataclass(frozen=True)
class Request:
    """What a user asked for: the verb's options, and the settings that were named as flags."""

    options: Any
    changes: dict[str, Any]

    def experiment(self, base: Experiment | None = None) -> Experiment:
        """Recipe, then file, then flags."""
        options = self.options
        if base is None:
            path = self.changes.get("data.path", Experiment().data.path)
            base = recipe(options.recipe) if options.recipe else None
            if options.experiment:
                base = read_experiment(options.experiment, base)
            # Backbones to choose from are pretrained ones.
            base = base or recipe("finetune" if self.changes.get("search.probe") else recipe_for(path))
        return base.override_all(self.changes)


def main(verb: Verb, run: Callable[[Request], int | None], argv: Sequence[str] | None = None) -> typing.NoReturn:
    """Read the command line, run the verb, and exit with its code. A user's mistake is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
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
    option_hints = hints(verb.options)
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
            target[name] = (*target.get(name, ()), *(item for value in values for item in words_of(hint, value)))
        else:
            if not equals:
                if hint is bool and (not words or words[0].lower() not in ("true", "false")):
                    value = "true"
                elif not words or words[0].startswith("--"):
                    raise ConfigError(f"--{name} needs a value")
                else:
                    value = words.pop(0)
            target[name] = from_text(name, hint, value)
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
    near = closest(name, verb.flags) or closest(last.get(name.rpartition(".")[2], name), verb.flags)
    return "there is no such setting" + (near.replace("mean ", "mean --") or f"; see jobs/{verb.name}.py --help")


def print_help(verb: Verb) -> None:
    """The help page, drawn by tyro from the options and slices."""
    import tyro
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        """Booleans are true and false here, and a setting that may be left open is described by its own type."""
        kind, optional = info.type, False
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
            kind, optional = inner[0], True
        while typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        if kind is not bool and not optional:
            return None
        options = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        metavar = (
            "{true,false}"
            if kind is bool
            else "{" + ",".join(map(str, options)) + "}"
            if options
            else kind.__name__.upper()
        )
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: True,
            str_from_instance=lambda value: ["none" if value is None else str(value).lower()],
        )

    places = [
        (
            f.name,
            Annotated[hints(verb.options)[f.name], tyro.conf.Positional, tyro.conf.arg(help=f.metadata["help"])],
            f,
        )
        for f in dataclasses.fields(verb.options)
        if f.name in verb.positionals
    ]
    options = dataclasses.make_dataclass("options", places, bases=(verb.options,), kw_only=True, frozen=True)
    base = Experiment()
    seed = Annotated[int, tyro.conf.arg(help=_SEED_HELP)]
    fields: list[Any] = [("run", Annotated[options, tyro.conf.OmitArgPrefixes])]
    fields += [("seed", seed, dataclasses.field(default=base.seed))] if verb.slices else []
    fields += [
        (noun, type(getattr(base, noun)), dataclasses.field(default=getattr(base, noun))) for noun in verb.slices
    ]
    page = dataclasses.make_dataclass("page", fields, kw_only=True)
    used = [name for name in COMMON if name in verb.flags]
    common = ["", "Most used: " + "  ".join(f"--{name}" for name in used)] if used else []
    with registry:
        tyro.cli(
            page,
            prog=f"python jobs/{verb.name}.py",
            description="\n".join([verb.summary, "", *(f"  python jobs/{e}" for e in verb.examples), *common]),
            args=["--help"],
            use_underscores=True,
            config=(tyro.conf.FlagConversionOff,),
        )


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a polite request to stop; the second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupts":
        self._before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: types.FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
