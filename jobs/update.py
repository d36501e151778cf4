"""Update a model with newly labelled images and new classes: python jobs/update.py runs/NAME NEW_IMAGES

It goes on from the model's weights, on the new images and a bounded memory of the older ones, whose answers are
replayed. A training on the memory alone is the baseline. The better one, by validation images, is promoted if it is
better on the new test images and not worse on the old ones, by paired 95 % intervals; else the exit code is 3. The
given run is not changed.
"""

import contextlib
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import NonNegativeInt, PositiveInt, Range
from classifier.errors import ConfigError, list_few
from classifier.text import show

from .cli.command import main
from .cli.console import RunLog
from .cli.environment import command_line
from .cli.interrupts import Interrupts
from .cli.verb import (
    DATA_SETTINGS,
    EXIT_ALARM,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    Options,
    Request,
    Verb,
    positional,
)

if TYPE_CHECKING:
    from classifier.bundle.document import Bundle
    from classifier.config.sections import DataConfig
    from classifier.data.dataset import Dataset
    from classifier.report.page import Table
    from classifier.runs.folder import RunFolder
    from classifier.update.document import Outcome, UpdateDocument
    from classifier.update.update import Update


@dataclass(frozen=True, kw_only=True)
class UpdateOptions(Options):
    run: str = positional("Folder of a run or a search.", default="")
    images: str = positional(
        "Newly labelled images, in any form that --data.path takes. One class will do.", default=""
    )
    memory: NonNegativeInt | None = None
    """Training images of the older ones to learn with the new, as many of each class; as many are kept for the next
    update. If unset, 500, or 20 a class if that is more; 0: none."""
    max_loss: Annotated[float, Range(0, 100)] | None = None
    """Largest loss of accuracy on the old test images, in percentage points, with which a model is promoted. If unset,
    1, or the least that can be shown on so few images."""
    epochs: PositiveInt | None = None
    """Epochs of the update. If unset, three quarters of the run's, or more if a quarter of its training would take
    more."""
    baseline: bool = True
    """Also train on the memory alone, which the update must beat, else it says so."""
    data: str | None = None
    """Path of the data set of the run, if it has moved. Its images, labels and splits must be unchanged."""
    resume: str | None = None
    """Go on with this earlier update; its trainings continue where they were."""


VERB = Verb(
    name="update",
    examples=(
        "runs/NAME new-photos/",
        "runs/NAME labels.csv --memory 2000",
        "runs/NAME new-photos/ --max-loss 2",
        "--resume runs/NAME-2",
    ),
    options=UpdateOptions,
    settings=DATA_SETTINGS,
)


def update(request: Request) -> int:
    """Train, compare and judge, and save the promoted model as the bundle of a new run."""
    from classifier.runtime.threads import use_free_cores
    from classifier.update.update import StoppedError, Update

    started = time.monotonic()
    with Interrupts() as interrupts, contextlib.ExitStack() as cleanup:
        with interrupts.nothing_to_save():
            log = cleanup.enter_context(RunLog())
            cleanup.enter_context(use_free_cores(request.load, log.info, "OMP_NUM_THREADS"))
            open_run = _resume if request.options.resume else _start
            run, document, config, dataset = open_run(request, log)
        cleanup.callback(run.close)
        run.started = started
        log.attach(run.folder / "run.log")
        _log_images(document, log)
        work = Update(
            run.folder,
            document,
            config,
            dataset,
            begin_phase=log.begin_phase,
            on_step=log.show_step,
            on_epoch=lambda epoch, epochs: log.log_epoch(epoch.row(), epochs),
            should_stop=lambda: interrupts.stop_requested,
        )

        def finish_interrupted() -> None:
            run.write_result(VERB.name, "stopped")
            log.next_step("stopped; resume it", command_line(VERB.name, "--resume", run.folder))
            log.info(str(run.folder))

        interrupts.say_how_to_resume = finish_interrupted
        try:
            outcome = work.run()
        except StoppedError:
            finish_interrupted()
            return EXIT_INTERRUPTED
        _finish(run, work, outcome, log)
        return EXIT_DONE if outcome["promoted"] else EXIT_ALARM


def _start(request: Request, log: RunLog) -> "tuple[RunFolder, UpdateDocument, DataConfig, Dataset]":
    """A new run. A user's mistake leaves no folder behind."""
    from classifier.bundle import bundle as bundles
    from classifier.compress.search import copy_original
    from classifier.config.experiment import Experiment
    from classifier.runs.folder import RunFolder
    from classifier.runs.recorder import save_inputs
    from classifier.update import document as documents
    from classifier.update.compose import compose
    from classifier.update.images import load_new_images, load_old_images
    from classifier.update.judge import choose_max_loss
    from classifier.update.memory import choose_size
    from classifier.update.update import ORIGINAL

    options = request.options
    if not (options.run and options.images):
        raise ConfigError("RUN or IMAGES is missing: give the folder of a run and the new images, or --resume")
    RunFolder.check_new(options.out, options.name)
    about = bundles.read(options.run)
    about.refuse_columns(VERB.name)
    about.refuse_labels(VERB.name)
    log.begin_phase("reading the older images")
    old = load_old_images(options.run, about, options.data, request.changes, log.progress_bar)
    log.begin_phase("reading the new images")
    new = load_new_images(options.run, about, options.images, request.changes, log.progress_bar)
    memory = choose_size(options.memory, old.class_names, new.class_names)
    if options.name:
        run = RunFolder.create(options.out, options.name)
    else:
        run = RunFolder.create_numbered(options.out, options.images)
    try:
        log.begin_phase("writing the images")
        copy_original(options.run, run.folder / ORIGINAL)
        composed = compose(old, new, memory, run.folder)
        document: UpdateDocument = {
            "format_version": documents.FORMAT_VERSION,
            "model": str(Path(options.run).absolute()),
            "data": options.images,
            "memory": memory,
            "max_loss": choose_max_loss(options.max_loss, composed.counts["old"]["test"]),
            "epochs": options.epochs,
            "run_epochs": _find_run_epochs(bundles.find(options.run).parent, about),
            "baseline": options.baseline and 0 < memory < sum(composed.counts[one]["train"] for one in ("old", "new")),
            "counts": composed.counts,
            "new_classes": composed.new_classes,
            "candidates": [],
        }
        config, dataset = _load(run.folder, document, request, log)
        dataset = dataclasses.replace(dataset, assigned=dataset.assigned and dataset.assigned.extend(new.assigned))
        save_inputs(run, dataclasses.replace(Experiment.from_dict(about.experiment), data=config), dataset)
        documents.write(run.folder, document)
    except BaseException:
        run.discard()
        raise
    return run, document, config, dataset


def _resume(request: Request, log: RunLog) -> "tuple[RunFolder, UpdateDocument, DataConfig, Dataset]":
    """An earlier update that has not finished."""
    from classifier.runs.folder import RunFolder
    from classifier.update import document as documents

    options = request.options
    if options.run or options.name:
        raise ConfigError("an update that is resumed keeps its model, images and name: leave them out")
    run = RunFolder.resume(options.resume)
    try:
        if not (run.folder / documents.DOCUMENT).is_file():
            raise ConfigError(f"{run.folder} is not an update: resume it by the verb that began it")
        document = documents.read(run.folder)
        document["max_loss"] = _choose_anew(document, options.max_loss, run.folder)
        config, dataset = _load(run.folder, document, request, log)
        run.set_result_aside()
    except BaseException:
        run.close()
        raise
    return run, document, config, dataset


def _find_run_epochs(folder: Path, about: "Bundle") -> int:
    """Epochs of the run, or, of a run that is an update itself, of the one that the first update was of."""
    from classifier.update import document as documents

    if (folder / documents.DOCUMENT).is_file():
        return documents.read(folder)["run_epochs"]
    return about.experiment["train"]["epochs"]


def _choose_anew(document: "UpdateDocument", asked: float | None, folder: Path) -> float:
    """The largest loss of an update that is resumed: it may grow. ConfigError if there is nothing left to do."""
    outcome = document.get("outcome")
    if outcome and (outcome["promoted"] or asked is None) and (folder / "result.json").is_file():
        how = "start another update" if outcome["promoted"] else "promote its model by a larger --max-loss"
        raise ConfigError(f"{folder} is finished: {how}")
    return document["max_loss"] if asked is None else asked


def _load(folder: Path, document: "UpdateDocument", request: Request, log: RunLog) -> "tuple[DataConfig, Dataset]":
    """The composed data set, with the statistics by which the model scales its images."""
    from classifier import data
    from classifier.bundle import bundle as bundles
    from classifier.data.assigned_splits import FILE as ASSIGNED_FILE
    from classifier.data.assigned_splits import AssignedSplits
    from classifier.update.compose import DATA
    from classifier.update.images import read_composed_as
    from classifier.update.update import ORIGINAL

    about = bundles.read(folder / ORIGINAL)
    config = read_composed_as(about, folder / DATA, request.changes)
    log.begin_phase("reading the images")
    dataset = data.load(config, log.progress_bar)
    changes: dict[str, Any] = {"name": Path(document["data"]).name, "mean": about.mean, "std": about.std}
    if (folder / ASSIGNED_FILE).is_file():  # with the images that the run before had
        changes["assigned"] = AssignedSplits.read(folder)
    return config, dataclasses.replace(dataset, **changes)


def _log_images(document: "UpdateDocument", log: RunLog) -> None:
    counts = document["counts"]
    for origin, parts in counts.items():
        images = ", ".join(f"{count:,} {split}" for split, count in parts.items())
        log.info(f"{origin} images: {images}")
    if document["new_classes"]:
        log.info(f"new classes: {show(list_few(document['new_classes']))}")


def _finish(run: "RunFolder", work: "Update", outcome: "Outcome", log: RunLog) -> None:
    """Write result.json and the report, and say what was decided."""
    from classifier.api.missing import Missing
    from classifier.api.pages import write_pages
    from classifier.config.files import read_experiment
    from classifier.report.sections.update_section import list_changes, list_models
    from classifier.runs.recorder import result_fields, save_inputs
    from classifier.update.judge import find_allowing_loss
    from classifier.update.update import STEPS

    document, promoted = work.document, outcome["promoted"]
    step = run.folder / STEPS / outcome["chosen"]
    save_inputs(run, read_experiment(step / "experiment.yaml"), work.dataset)
    fields = result_fields(run.folder if promoted else step)
    run.write_result(VERB.name, "finished", **fields, promoted=promoted)
    missing = Missing()
    page = write_pages(run.folder, missing)
    for table in (list_models(document), list_changes(document)):
        log.info(_make_table(table))
    for line in outcome["reasons"]:
        log.info(line)
    for line in missing.describe():
        log.warning(line)
    if promoted:
        log.info("promoted: the updated model is this run's")
        log.next_step("serve it", command_line("serve", run.folder))
    else:
        log.warning(f"not promoted: {document['model']} stays the model; the one that was trained is in {step}")
        if larger := find_allowing_loss(document):
            again = command_line(VERB.name, "--resume", run.folder, "--max-loss", f"{larger:g}")
            log.next_step("promote it all the same", again)
    log.next_step("report", page)
    log.info(str(run.folder))


def _make_table(table: "Table") -> Any:
    """The same table for the terminal."""
    import rich.table

    grid = rich.table.Table(box=None, pad_edge=False)
    for n, name in enumerate(table.head):
        grid.add_column(name, justify="right" if n else "left")
    for row in table.rows:
        grid.add_row(*(show(str(cell)) for cell in row))
    return grid


if __name__ == "__main__":
    main(VERB, update)
