"""What a verb is: its flags, its options and the request that a command line makes."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from classifier.config.experiment import Experiment, setting_names
from classifier.config.fields import Section, field_types
from classifier.config.files import read_experiment
from classifier.config.recipes import recipe, recipe_for

EXIT_DONE, EXIT_FAILED, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 1, 2, 130


SLICES = ("data", "model", "train", "optimizer", "augment", "schedule", "loss", "checkpoint", "workers")


@dataclass(frozen=True, kw_only=True)
class Options(Section):
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
    options: type[Section]
    slices: tuple[str, ...] = ()

    @property
    def flags(self) -> dict[str, Any]:
        """Every flag with its type, in the order of the help page."""
        mine = {name: hint for name, hint in field_types(self.options).items() if name not in self.positionals}
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
