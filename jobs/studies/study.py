"""A run of several trainings: its folder, what was asked for, and its end. Cross-validations and learning curves."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, RunError
from classifier.report import run_page
from classifier.runs.folder import Run
from classifier.storage.atomic import write_atomically
from classifier.training.resolve import resolve
from jobs.cli.console import Journal
from jobs.cli.interrupts import Interrupts
from jobs.cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request
from jobs.steps.session import default_name

ASKED = "family.json"


@dataclass(frozen=True)
class Family:
    """What the verbs that train several times work with."""

    kind: str
    run: Run
    journal: Journal
    interrupts: Interrupts
    experiment: Experiment
    options: dict[str, Any]
    dataset: Dataset
    """As the first member sees it."""

    @property
    def folder(self) -> Path:
        return self.run.folder

    def is_asked(self) -> bool:
        """The user wants it to stop."""
        return self.interrupts.asked

    def say(self, thing: Any) -> None:
        self.journal.say(thing)

    def stopped(self) -> int:
        """End before all members have: they can be gone on with."""
        self.run.write_result(self.kind, "stopped", config=self.experiment.as_dict(), dataset=self.dataset.summary())
        self.say(f"stopped; go on with it: python jobs/{self.kind}.py --resume {self.folder}")
        return EXIT_INTERRUPTED

    def finished(self, **parts: Any) -> int:
        """Write the result and the report."""
        about = {"config": self.experiment.as_dict(), "dataset": self.dataset.summary()}
        self.run.write_result(self.kind, "finished", **about, **parts)
        self.say(f"all about it: {run_page.write(self.folder)}")
        self.say(str(self.folder))
        return EXIT_DONE


@contextlib.contextmanager
def begun(kind: str, request: Request, keep: tuple[str, ...], first: dict[str, Any] | None = None) -> Iterator[Family]:
    """A new family, or with --resume an earlier one. keep: the options that decide what it does.

    first: settings of its first member. A mistake that shows before a training begins leaves no folder behind.
    """
    options = request.options
    if options.resume:
        run, experiment, asked = _taken_up(kind, request, keep)
    else:
        experiment, asked = request.experiment(), {name: getattr(options, name) for name in keep}
        run = Run.create(options.out, options.name or default_name(kind, experiment.data.path, options.out))
    try:
        with Interrupts() as interrupts, Journal(run.folder / "run.log") as journal:
            member = experiment.override_all(first or {})
            dataset = data.load(member.data, journal.bar)
            resolve(member, dataset)
            run.write_experiment(experiment)
            write_atomically(run.folder / ASKED, json.dumps({"kind": kind} | asked) + "\n")
            yield Family(kind, run, journal, interrupts, experiment, asked, dataset)
    except BaseException:
        if not any(run.folder.glob("*/*/history.jsonl")):
            run.discard()
        raise
    finally:
        run.close()


def _taken_up(kind: str, request: Request, keep: tuple[str, ...]) -> tuple[Run, Experiment, dict[str, Any]]:
    options = request.options
    folder = Path(options.resume)
    folder = folder if folder.is_dir() or len(folder.parts) > 1 else Path(options.out) / options.resume
    plain = {field.name: field.default for field in dataclasses.fields(options)}
    changed = any(getattr(options, name) != plain[name] for name in keep)
    if request.changes or changed or options.recipe or options.experiment or options.name:
        raise ConfigError(f"--resume goes on with {folder} as it was asked for: leave the other flags out")
    try:
        asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    except OSError:
        raise RunError(f"{folder} is no {kind} (it has no {ASKED}): give the folder of an earlier one") from None
    if asked.get("kind") != kind:
        raise RunError(
            f"{folder} is a {asked.get('kind')}: python jobs/{asked.get('kind')}.py --resume goes on with it"
        )
    run = Run.resume(folder)
    (folder / "result.json").unlink(missing_ok=True)  # while it goes on it has no result
    return run, read_experiment(folder / "experiment.yaml"), {name: asked[name] for name in keep}
