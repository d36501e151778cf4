"""The help page of a verb, printed by tyro."""

import dataclasses
import types
import typing
from typing import Annotated, Any

from classifier.config.experiment import Experiment
from classifier.config.fields import Section, field_types
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

    options = _with_help(verb.options)
    sections = {name: _with_help(type(getattr(Experiment(), name))) for name in verb.sections}
    seed = Annotated[int, tyro.conf.arg(help=_SEED_HELP)]
    fields: list[Any] = [("run", Annotated[options, tyro.conf.OmitArgPrefixes])]
    fields += [("seed", seed, dataclasses.field(default=Experiment().seed))] if verb.sections else []
    fields += [(name, section, dataclasses.field(default=section())) for name, section in sections.items()]
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


def _with_help(section: type[Section]) -> type:
    """A dataclass of the same fields, each with its docstring as help, in one paragraph.

    tyro would read the docstrings itself, but break their lines where the source does.
    """
    import docstring_parser
    import tyro

    documented = [cls for cls in reversed(section.__mro__) if dataclasses.is_dataclass(cls)]
    texts = {
        param.arg_name: " ".join((param.description or "").split())
        for cls in documented
        for param in docstring_parser.parse_from_object(cls).params
    }
    fields: list[Any] = []
    for field in dataclasses.fields(section):
        is_positional = field.metadata.get("positional", False)
        help_ = tyro.conf.arg(help=field.metadata["help"] if is_positional else texts[field.name])
        hint: Any = Annotated[field_types(section)[field.name], help_]
        fields.append((field.name, Annotated[hint, tyro.conf.Positional] if is_positional else hint, field))
    return dataclasses.make_dataclass(section.__name__, fields, kw_only=True, frozen=True)
