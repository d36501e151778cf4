"""A verb: its flags and options, and the request that a command line is parsed into."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from classifier.config.experiment import Experiment, flatten, setting_names
from classifier.config.fields import Section, field_types
from classifier.config.files import read_experiment
from classifier.config.recipes import AUTO, recipe, recipe_for
from classifier.config.trust import check_trusted, trust, trust_models
from classifier.runtime.cpu import OtherLoad

from .verbs import SUMMARIES

EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, EXIT_ALARM, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
DEFAULT_OUT = "runs"
# The sections of settings that a training takes.
SECTIONS = ("data", "model", "train", "optimizer", "augment", "schedule", "loss", "semi", "checkpoint", "workers")


def positional(help_: str, **kwargs: Any) -> Any:
    """A field of a verb's options that is a positional argument."""
    return dataclasses.field(metadata={"positional": True, "help": help_}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Section):
    """Options of every verb that builds a model."""

    trust: tuple[str, ...] = dataclasses.field(default=(), metadata={"repeated": True})
    """Allow a model (module:Class) that a run, bundle or file names to be imported. Repeat it for several."""


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Options of every verb that makes a run folder."""

    name: str | None = None
    """Name of the run; its folder is OUT/NAME. If unset, the data set's name and the next free number: photos-3."""
    out: str = DEFAULT_OUT
    """Parent folder of run folders."""


@dataclass(frozen=True, kw_only=True)
class OptionalRunOptions(ModelOptions):
    """Options of a verb that makes a run folder of its own only if asked to, by one of these."""

    name: str | None = None
    """Also save the results as a run of this name, in OUT/NAME."""
    out: str | None = None
    """Also save the results as a run in this folder (with --name: in runs/)."""


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(Options):
    """Options of a verb that starts from an experiment."""

    path: str = positional("The images to learn from; the same as --data.path.", default="")
    recipe: str | None = None
    """Recipe to start from; auto: chosen by the images. If unset, that of a data set known by name, else auto."""
    experiment: str | None = None
    """YAML or JSON file of settings, such as best.yaml or experiment.yaml; overrides the recipe."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ExperimentOptions):
    """Options of train and tune."""

    resume: str | None = None
    """Resume this earlier run. It keeps its settings, except for --workers.*, --search.minutes and --search.keep;
    --train.epochs and --search.trials may grow."""
    storage: str | None = None
    """Mirror the run to storage that outlives this machine: s3://bucket/runs, gs://..., or a shared path."""
    dry_run: bool = False
    """Print data, shapes, memory use and the time of one step, then stop."""


# How the data of a finished model may be read: a bundle or run does not choose it (evaluation/training_data.py).
DATA_SETTINGS = tuple(
    f"data.{name}"
    for name in ("root", "only", "outside", "download", "cache", "cache_gb", "max_pixels", "max_bytes", "max_seconds")
)


@dataclass(frozen=True)
class Verb:
    """A command: its examples, own options, and the sections of settings that it takes."""

    name: str
    examples: tuple[str, ...]
    """Arguments to try, each perhaps with a comment after #."""
    options: type[Section]
    sections: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Single settings that it takes, besides those of its sections."""
    unused: tuple[str, ...] = ()
    """Settings in its sections that it has no use for, and refuses."""
    common: tuple[str, ...] = ()
    """Settings that --help shows, the most used first; --help-all shows all of them."""

    @property
    def summary(self) -> str:
        """What the verb does, in a sentence."""
        return SUMMARIES[self.name]

    @property
    def own_flags(self) -> dict[str, Any]:
        """The flags of the verb's own options, with their types."""
        return {name: hint for name, hint in field_types(self.options).items() if name not in self.positionals}

    @property
    def setting_flags(self) -> dict[str, Any]:
        """The flags of its settings, with their types, in the order of its sections."""
        sections = (*self.sections, "seed") if self.sections else ()  # `seed` is the one setting outside a section
        settings = setting_names().items()
        own = {name: hint for one in sections for name, hint in settings if name.partition(".")[0] == one}
        own |= {name: hint for name, hint in settings if name in self.settings}
        return {name: hint for name, hint in own.items() if name not in self.unused}

    @property
    def flags(self) -> dict[str, Any]:
        """Every flag with its type."""
        return self.own_flags | self.setting_flags

    @property
    def positionals(self) -> list[str]:
        """Names of the positional arguments, in order."""
        return [f.name for f in dataclasses.fields(self.options) if f.metadata.get("positional")]


@dataclass(frozen=True)
class Request:
    """A parsed command line: the verb's options, and the settings given as flags."""

    options: Any
    changes: dict[str, Any]
    load: OtherLoad = dataclasses.field(default_factory=OtherLoad, compare=False)
    """Of other processes, while libraries and data are loaded: it decides how many threads are used."""

    def trust_named_models(self) -> None:
        """Allow the import paths that the user has named, in --trust or in settings, to be imported."""
        trust(*getattr(self.options, "trust", ()))
        searched = dict(word.split("=", 1) for word in self.changes.get("search.vary", ()) if "=" in word)
        probed = [word.partition("=")[0] for word in self.changes.get("search.probe", ())]
        own = str(self.changes.get("model.name", ""))
        trust_models([own, *probed, *searched.get("model.name", "").split(",")])

    @property
    def is_auto(self) -> bool:
        """Whether the recipe is to be chosen by the images."""
        options = self.options
        if options.recipe or options.experiment or self.changes.get("search.probe"):
            return options.recipe == AUTO
        return recipe_for(self.changes.get("data.path", Experiment().data.path)) == AUTO

    @property
    def given(self) -> dict[str, Any]:
        """The settings by dotted name that the user gave, in a file or as flags."""
        default, file = flatten(Experiment().as_dict()), self.options.experiment
        stored = flatten(read_experiment(file, Experiment()).as_dict()) if file else {}
        return {name: value for name, value in stored.items() if value != default[name]} | self.changes

    def experiment(self, base: Experiment | None = None) -> Experiment:
        """The recipe or `base`, overridden by the experiment file, overridden by the flags.

        Where the recipe is to be chosen by the images, and is not given as `base`, without a recipe."""
        options = self.options
        if base is None and not self.is_auto:
            path = self.changes.get("data.path", Experiment().data.path)
            # A probe ranks pretrained backbones.
            fitting = "finetune" if self.changes.get("search.probe") else recipe_for(path)
            base = None if options.experiment and not options.recipe else recipe(options.recipe or fitting)
        base = base or Experiment()
        if options.experiment:
            base = read_experiment(options.experiment, base)
        experiment = base.override_all(self.changes)
        check_trusted(experiment.model.name, options.experiment or "")
        return experiment
