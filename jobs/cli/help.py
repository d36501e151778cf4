"""The help page of a verb, drawn by tyro."""

import dataclasses
import types
import typing
from typing import Annotated, Any

from classifier.config.experiment import Experiment
from classifier.config.fields import field_types
from jobs.cli.verb import Verb

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
            Annotated[field_types(verb.options)[f.name], tyro.conf.Positional, tyro.conf.arg(help=f.metadata["help"])],
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
