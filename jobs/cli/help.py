"""The help page of a verb, printed by tyro."""

import dataclasses
import types
import typing
from typing import Annotated, Any

from classifier.config.experiment import Experiment
from classifier.config.fields import field_types
from jobs.cli.verb import Verb

_SEED_HELP = "Random seed of weights, image order, augmentation and dropout."
# What a newcomer sets first is listed first on the page.
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


def print_help(verb: Verb) -> None:
    """Print the help page, made from the verb's options and sections of settings."""
    import tyro
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        """Show a boolean as {true,false}, and an optional setting by the type that it has when set."""
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

    positionals = [
        (
            f.name,
            Annotated[field_types(verb.options)[f.name], tyro.conf.Positional, tyro.conf.arg(help=f.metadata["help"])],
            f,
        )
        for f in dataclasses.fields(verb.options)
        if f.name in verb.positionals
    ]
    options = dataclasses.make_dataclass("options", positionals, bases=(verb.options,), kw_only=True, frozen=True)
    base = Experiment()
    seed = Annotated[int, tyro.conf.arg(help=_SEED_HELP)]
    fields: list[Any] = [("run", Annotated[options, tyro.conf.OmitArgPrefixes])]
    fields += [("seed", seed, dataclasses.field(default=base.seed))] if verb.sections else []
    fields += [
        (name, type(getattr(base, name)), dataclasses.field(default=getattr(base, name))) for name in verb.sections
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
