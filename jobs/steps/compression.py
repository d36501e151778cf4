"""A compression in a run folder: opened or resumed with its data, and finished with a table and a bundle."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from classifier.api.missing import Missing
from classifier.api.pages import write_pages
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle
from classifier.compress import conclude, table
from classifier.compress.judge import compare_answers
from classifier.compress.measurements import ORIGINAL, Measurements
from classifier.compress.search import TEACHERS, Search, copy_original, remove_scratch
from classifier.compress.table import CompressDocument, Row
from classifier.compress.train_step import make_teacher
from classifier.compress.unlabelled import save_unlabelled
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.evaluation.calibrate import describe_folds, select_held_out
from classifier.evaluation.training_data import load_training_data
from classifier.report.sections.compress_section import describe_images, format_row
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import result_fields, save_inputs
from classifier.runtime.threads import use_free_cores

from ..cli.console import RunLog
from ..cli.environment import command_line
from ..cli.interrupts import Interrupts
from ..cli.verb import Request


@dataclass(frozen=True)
class Compression:
    """What the verb works with."""

    kind: str
    run: RunFolder
    log: RunLog
    search: Search

    def finish_interrupted(self) -> None:
        """Write the result of a compression that was stopped, and say how to resume it."""
        self.run.write_result(self.kind, "stopped")
        self.log.next_step("stopped; resume it", command_line(self.kind, "--resume", self.run.folder))
        self.log.info(str(self.run.folder))

    def finish(self, row: Row) -> None:
        """Save the row's model, write result.json and the report, and log the table."""
        run, log, models = self.run, self.log, self.search.models
        log.begin_phase("saving the model")
        loaded = conclude.save_winner(models, row, run.bundle)
        run.write_experiment(Experiment.from_dict(loaded.bundle.experiment))
        models.document["winner"] = row["name"]
        table.write(run.folder, models.document)
        run.write_result(self.kind, "finished", **result_fields(run.folder, loaded))
        remove_scratch(run.folder)
        missing = Missing()
        page = write_pages(run.folder, missing)
        log.info(make_table(models.document))
        for line in missing.describe():
            log.warning(line)
        if row["name"] == models.document["rows"][0]["name"]:
            log.info("no faster model loses as little: the original is saved, exported")
        log.next_step("test it once", command_line("evaluate", run.folder))
        log.next_step("report", page)
        log.info(str(run.folder))


@contextlib.contextmanager
def open_compression(kind: str, request: Request) -> Iterator[Compression]:
    """Open a new compression, or with --resume an earlier one: its data are loaded, and the original is copied.

    A user's mistake leaves no folder behind.
    """
    options, started = request.options, time.monotonic()
    with Interrupts() as interrupts, contextlib.ExitStack() as cleanup:
        with interrupts.nothing_to_save():
            log = cleanup.enter_context(RunLog())
            cleanup.enter_context(use_free_cores(request.load, log.info, "OMP_NUM_THREADS"))
            open_run = _resume if options.resume else _start
            run, document, dataset = open_run(request, log)
        cleanup.callback(run.close)
        log.attach(run.folder / "run.log")
        limit = None if options.minutes is None else started + 60 * options.minutes
        models = Measurements(run.folder, document, dataset, log.info, log.begin_phase)
        search = Search(
            models,
            on_step=log.show_step,
            on_epoch=lambda epoch, epochs: log.log_epoch(epoch.row(), epochs),
            should_stop=lambda: interrupts.stop_requested,
            is_late=lambda: limit is not None and time.monotonic() > limit,
        )
        work = Compression(kind, run, log, search)
        interrupts.say_how_to_resume = work.finish_interrupted
        yield work


def make_table(document: CompressDocument) -> Table:
    """Return the table of all models, the fastest first; * marks the one that was saved."""
    title = f"accuracy on {describe_images(document)}"
    grid = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("model", "MB", "ms, 1", "ms, 32", "images/s", "accuracy", "95 %", "lost", "95 %", ""):
        grid.add_column(name, justify="left" if name == "model" else "right")
    for row in sorted(document["rows"], key=lambda row: row["milliseconds_1"]):
        outcome = "*" if row["name"] == document.get("winner") else "" if row["accepted"] else "too much"
        grid.add_row(*format_row(row, document), outcome)
    return grid


def _start(request: Request, log: RunLog) -> tuple[RunFolder, CompressDocument, Dataset]:
    options = request.options
    if not options.run:
        raise ConfigError("RUN is missing: give the folder of a run, a search or a bundle, or --resume")
    about = bundles.read(options.run)
    about.refuse_columns("compress")
    dataset = _load(options.run, about, options.data, request, log)
    document = _describe(options, about, dataset)
    _check_limit(document)
    experiment = Experiment.from_dict(about.experiment)
    out, name = options.out, options.name
    run = RunFolder.create(out, name) if name else RunFolder.create_numbered(out, experiment.data.path)
    try:
        copy_original(options.run, run.folder / ORIGINAL)
        for number, path in enumerate(options.teacher):
            copy_original(path, run.folder / TEACHERS / str(number))
        teachers = [run.folder / TEACHERS / str(number) for number in range(len(options.teacher))]
        teacher = make_teacher(teachers or [run.folder / ORIGINAL], about.class_names, about.channels, "auto")
        if options.unlabelled:
            log.begin_phase("reading the images without labels")
            save_unlabelled(Path(options.unlabelled), about, teacher, experiment.data, run.folder)
        if options.data:
            experiment = experiment.override("data.path", options.data)
        save_inputs(run, experiment, dataset)
        table.write(run.folder, document)
    except BaseException:
        run.discard()
        raise
    return run, document, dataset


def _describe(options: Any, about: Bundle, dataset: Dataset) -> CompressDocument:
    by_folds = describe_folds(about)
    document: CompressDocument = {
        "format_version": table.FORMAT_VERSION,
        "name": Path(options.run).resolve().name,
        "max_loss": options.max_loss,
        "steps": list(options.steps),
        "students": list(options.students),
        "epochs": options.epochs,
        "threads": options.threads,
        "teachers": len(options.teacher),
        "images": len(select_held_out(dataset) if by_folds else dataset.validation),
        "rows": [],
        "refused": [],
    }
    if by_folds:
        document["by_folds"] = by_folds
    return document


def _resume(request: Request, log: RunLog) -> tuple[RunFolder, CompressDocument, Dataset]:
    options = request.options
    if options.run or options.name:
        raise ConfigError("a compression that is resumed keeps its model and its name: leave out RUN and --name")
    run = RunFolder.resume(options.resume)
    try:
        document = table.read(run.folder)
        if document.get("winner"):
            raise ConfigError(f"{run.folder} is finished: start another compression")
        original = run.folder / ORIGINAL
        dataset = _load(original, bundles.read(original), options.data, request, log)
        run.set_result_aside()
    except BaseException:
        run.close()
        raise
    return run, document, dataset


def _check_limit(document: CompressDocument) -> None:
    """Refuse a limit that no model could keep, as even one that agrees on all images may lose more."""
    images = np.ones(document["images"], bool)
    least = 100 * compare_answers(images, images).high
    if least > document["max_loss"]:
        more = "" if document.get("by_folds") else ", or train with more of them (--data.validation)"
        raise ConfigError(
            f"--max-loss {document['max_loss']:g}: a loss below {least:.2f} points cannot be shown on "
            f"{describe_images(document)}: allow more{more}"
        )


def _load(path: str | Path, about: Any, data: str | None, request: Request, log: RunLog) -> Dataset:
    """Load the data, which must have validation images: models are judged on them."""
    log.begin_phase("reading the data")
    dataset = load_training_data(path, about, data, request.changes)
    if not len(dataset.validation) and not describe_folds(about):
        raise DataError(
            f"{path} has no validation images, on which smaller models are judged: train it with --data.validation 0.2"
        )
    return dataset
