"""A study: one experiment trained several times in one run folder, for a cross-validation or a learning curve."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.api.missing import Missing
from classifier.api.pages import write_pages
from classifier.config.documents import check, read_json
from classifier.config.experiment import Experiment
from classifier.config.fields import PositiveInt, field_types
from classifier.config.files import read_experiment
from classifier.config.sections import DataConfig
from classifier.config.trust import check_trusted
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, RunError
from classifier.runs.data_location import find_data, write_location
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import describe_error
from classifier.runtime.threads import use_free_cores
from classifier.storage.atomic import write_atomically
from classifier.training.resolve import resolve

from ..cli.console import RunLog
from ..cli.interrupts import Interrupts
from ..cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request
from ..launch import run_storage
from ..steps.recipe import request_experiment, use_cores
from ..steps.session import resume_command

STUDY_FILE = "family.json"


@dataclass(frozen=True)
class Study:
    """What a verb that trains several times works with."""

    kind: str
    run: RunFolder
    log: RunLog
    interrupts: Interrupts
    experiment: Experiment
    options: dict[str, Any]
    dataset: Dataset
    """The data set as the first training sees it."""

    @property
    def folder(self) -> Path:
        return self.run.folder

    def stop_requested(self) -> bool:
        """Whether the user wants it to stop."""
        return self.interrupts.stop_requested

    def info(self, thing: Any) -> None:
        self.log.info(thing)

    def finish_interrupted(self) -> int:
        """Write the result of a study that was stopped early, and how to resume it; the exit code."""
        self.run.write_result(self.kind, "stopped", config=self.experiment.as_dict(), dataset=self.dataset.summary())
        self.say_how_to_resume()
        return EXIT_INTERRUPTED

    def say_how_to_resume(self) -> None:
        """Print the command that goes on with a study that was stopped, and its folder."""
        self.log.next_step("stopped; resume it", resume_command(self.kind, self.folder))
        self.info(str(self.folder))

    def finish(self, **fields: Any) -> int:
        """Write the result and the report; the exit code."""
        about = {"config": self.experiment.as_dict(), "dataset": self.dataset.summary()}
        self.run.write_result(self.kind, "finished", **about, **fields)
        self.log.begin_phase("writing the report")
        missing = Missing()
        self.log.next_step("report", write_pages(self.folder, missing))
        for line in missing.describe():
            self.log.warning(line)
        self.info(str(self.folder))
        return EXIT_DONE


@contextlib.contextmanager
def open_study(
    kind: str,
    request: Request,
    saved_options: tuple[str, ...],
    first_run_changes: dict[str, Any] | None = None,
    *,
    sets_aside: bool = False,
) -> Iterator[Study]:
    """Open a new study, or with --resume an earlier one. saved_options: those that decide what it trains.

    first_run_changes: settings of its first training, with which the data is loaded and checked. An error before
    anything was trained leaves no folder behind. sets_aside: images are needed to validate on, also where the recipe
    `auto` would train on all.
    """
    if request.options.resume:
        run, experiment, options, threads = _resume_study(kind, request, saved_options)
        log = RunLog(run.folder / "run.log")
        cores = use_free_cores(request.load, log.info, "--train.threads", threads=threads)
        with _recorded_or_discarded(kind, run), Interrupts() as interrupts, log, cores:
            with interrupts.nothing_to_save():
                found = find_data(experiment.data, run.folder, "move them back")
                experiment = dataclasses.replace(experiment, data=found)
                dataset = _load(experiment, first_run_changes, log)
            yield _save(Study(kind, run, log, interrupts, experiment, options, dataset))
        return
    started = time.monotonic()
    options = {name: getattr(request.options, name) for name in saved_options}
    out, name = request.options.out, request.options.name
    run_storage.check_new(out, name)
    with contextlib.ExitStack() as outer, Interrupts() as interrupts, RunLog() as log:
        with interrupts.nothing_to_save():
            outer.enter_context(use_cores(request, log))
            experiment = request_experiment(request, log)
            if sets_aside and request.is_auto and "data.validation" not in request.given:
                share = max(experiment.data.validation, DataConfig().validation)
                experiment = experiment.override("data.validation", share)
            dataset = _load(experiment, first_run_changes, log)
        run = run_storage.create_run(out, name, experiment.data.path)
        run.started = started
        outer.enter_context(_recorded_or_discarded(kind, run))
        log.attach(run.folder / "run.log")
        yield _save(Study(kind, run, log, interrupts, experiment, options, dataset))


@contextlib.contextmanager
def _recorded_or_discarded(kind: str, run: RunFolder) -> Iterator[None]:
    """Close the run folder. After an error it says so, unless nothing was trained: then it is removed."""
    try:
        yield
    except BaseException as error:
        if any(run.folder.rglob("history.jsonl")):  # those of a search in a fold lie deeper
            if not (run.folder / "result.json").exists():
                _record_failure(kind, run, error)
            error.add_note(f"resume it: {resume_command(kind, run.folder)}")
            error.add_note(str(run.folder))
        else:
            run.discard()
        raise
    finally:
        run.close()


def _record_failure(kind: str, run: RunFolder, error: BaseException) -> None:
    fields = {} if isinstance(error, KeyboardInterrupt) else {"error": describe_error(error)}
    with contextlib.suppress(OSError):  # a full disk, which may be the error itself
        run.write_failure(kind, "failed" if fields else "stopped", **fields)


def _load(experiment: Experiment, changes: dict[str, Any] | None, log: RunLog) -> Dataset:
    """The data as the first training sees it. Errors of data.load and resolve for that training."""
    log.begin_phase(f"reading {experiment.data.path}")
    first = experiment.override_all(changes or {})
    dataset = data.load(first.data, log.progress_bar)
    resolve(first, dataset)
    return dataset


def _save(study: Study) -> Study:
    """Write what --resume needs."""
    study.interrupts.say_how_to_resume = study.say_how_to_resume
    study.run.set_result_aside()
    study.run.write_experiment(study.experiment)
    write_location(study.folder, study.experiment.data, study.dataset.fingerprint)
    document = {"kind": study.kind, "threads": torch.get_num_threads()} | study.options
    write_atomically(study.folder / STUDY_FILE, json.dumps(document) + "\n")
    return study


def _resume_study(
    kind: str, request: Request, saved_options: tuple[str, ...]
) -> tuple[RunFolder, Experiment, dict[str, Any], int | None]:
    options = request.options
    folder = Path(options.resume)
    folder = folder if folder.is_dir() or len(folder.parts) > 1 else Path(options.out) / options.resume
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    has_changes = any(getattr(options, name) != defaults[name] for name in saved_options)
    if request.changes or has_changes or options.recipe or options.experiment or options.name:
        raise ConfigError(f"--resume continues {folder} with its own settings: leave the other flags out")
    if not (folder / STUDY_FILE).is_file():
        raise RunError(f"{folder} is not a {kind} (it has no {STUDY_FILE}): give the folder of an earlier one")
    saved = read_json(folder / STUDY_FILE, dict[str, Any])
    if saved.get("kind") != kind:
        raise RunError(
            f"{folder} is a {saved.get('kind')}: resume it with {resume_command(str(saved.get('kind')), folder)}"
        )
    try:
        settings = {name: check(name, field_types(type(options))[name], saved.get(name)) for name in saved_options}
        threads = check("threads", PositiveInt | None, saved.get("threads"))  # earlier versions have not saved it
    except ConfigError as error:
        raise RunError(f"{folder / STUDY_FILE} is corrupted ({error}): start a new {kind}") from None
    experiment = read_experiment(folder / "experiment.yaml")
    check_trusted(experiment.model.name, folder / "experiment.yaml")
    run = RunFolder.resume(folder)
    return run, experiment, settings, threads
