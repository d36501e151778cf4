"""Sessions: a verb opens a new run folder or resumes an earlier one, and a failure is recorded in it."""

import contextlib
import dataclasses
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.config.trust import check_trusted
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError
from classifier.profiling import step_time
from classifier.runs.data_location import check_same_data, find_data
from classifier.runs.folder import REQUESTED_EXPERIMENT, RunFolder
from classifier.runs.recorder import record_failure, save_inputs
from classifier.runtime.threads import use_free_cores
from classifier.storage.uri import refuse_endpoint
from classifier.training.progress import describe_run
from classifier.training.resolve import resolve

from ..cli.console import RunLog
from ..cli.environment import command_line
from ..cli.interrupts import Interrupts
from ..cli.verb import Request
from ..launch import run_storage, torchrun
from .recipe import request_experiment, use_cores

# Settings that may change when a run is resumed.
RESUMABLE = {
    "train": (
        "workers.count",
        "workers.min",
        "workers.wait",
        "workers.cpus",
        "workers.gpus",
        "train.epochs",
        "data.path",
    ),
    "tune": (
        *("workers.wait", "workers.cpus", "workers.gpus", "search.trials", "search.minutes", "search.keep"),
        "data.path",
    ),
}


NEW_PATH = "give their new path by --data.path"


@dataclass(frozen=True)
class Session:
    """A run that this process works on, with its data loaded.

    `requested` is the experiment as the user asked for it; `experiment` has every open setting resolved."""

    kind: str
    run: RunFolder
    log: RunLog
    interrupts: Interrupts
    requested: Experiment
    experiment: Experiment
    dataset: Dataset

    def say_how_to_resume(self) -> None:
        """Print the command that goes on with a run that was stopped, and its folder."""
        self.log.next_step("stopped; resume it", resume_command(self.kind, self.run.folder))
        self.log.info(str(self.run.folder))


@contextlib.contextmanager
def open_session(kind: str, request: Request) -> Iterator[Session]:
    """Open a new run, or with --resume an earlier one: data loaded, experiment resolved and saved.

    A user error that shows before training starts leaves no folder behind; a later failure is recorded in result.json.
    """
    start = _resume_session if request.options.resume else _start_session
    with contextlib.ExitStack() as cleanup:
        yield start(kind, request, cleanup)


def _start_session(kind: str, request: Request, cleanup: contextlib.ExitStack) -> Session:
    """A new run. Its folder is created once the data is loaded, but a name that is taken is refused before."""
    started, options = time.monotonic(), request.options
    run_storage.check_new(options.out, options.name, options.storage)
    owner = cleanup.enter_context(_RunOwner(kind))
    interrupts, log = cleanup.enter_context(Interrupts()), cleanup.enter_context(RunLog())
    features = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
    with interrupts.nothing_to_save():
        cleanup.enter_context(use_cores(request, log))
        chosen = request_experiment(request, log, features, in_steps=kind == "tune")
        requested, experiment, dataset = _load_inputs(kind, chosen, log)
    run = run_storage.create_run(options.out, options.name, requested.data.path, options.storage)
    if any(features.iterdir()) or not experiment.takes_steps:  # those of a probe are needed again to calibrate it
        run.feature_folder = features
    run.started = started
    owner.take(run, requested)
    session = Session(kind, run, log, interrupts, requested, experiment, dataset)
    _save_inputs(session, owner)
    return session


def _resume_session(kind: str, request: Request, cleanup: contextlib.ExitStack) -> Session:
    """An earlier run. This process owns it before its data is loaded."""
    run, requested = _resume_run(kind, request)
    owner = cleanup.enter_context(_RunOwner(kind))
    owner.take(run, requested)
    interrupts, log = cleanup.enter_context(Interrupts()), cleanup.enter_context(RunLog())
    with interrupts.nothing_to_save():
        recorded = requested if kind == "train" else read_experiment(run.folder / "experiment.yaml")
        threads = recorded.train.threads
        cleanup.enter_context(use_free_cores(request.load, log.info, "--train.threads", threads=threads))
        found = find_data(requested.data, run.folder, NEW_PATH, is_new_path="data.path" in request.changes)
        requested = dataclasses.replace(requested, data=found)
        requested, experiment, dataset = _load_inputs(kind, requested, log)
    check_same_data(run.folder, dataset)
    session = Session(kind, run, log, interrupts, requested, experiment, dataset)
    _save_inputs(session, owner)
    return session


def _load_inputs(kind: str, requested: Experiment, log: RunLog) -> tuple[Experiment, Experiment, Dataset]:
    """The requested and the resolved experiment, and its data. data.batch_auto is measured, except for a search."""
    log.begin_phase(f"reading {requested.data.path}")
    dataset = data.load(requested.data, log.progress_bar)
    experiment = resolve(requested, dataset)
    if experiment.data.batch_auto and kind != "tune":  # a search's plan measures it where its trials run
        log.begin_phase("measuring batch sizes")
        measured, lines = _measure_batch(requested, experiment, dataset)
        requested, experiment = requested.override_all(measured), experiment.override_all(measured)
        for line in lines:
            log.info(line)
    return requested, experiment, dataset


def _save_inputs(session: Session, owner: "_RunOwner") -> None:
    """Write what is trained and on what into the run folder, log it, and start to mirror the folder to its storage."""
    run, experiment = session.run, session.experiment
    run.set_result_aside()  # of a run that is resumed, once its data are loaded: no mistake may cost it its result
    session.log.attach(run.folder / "run.log")
    session.interrupts.say_how_to_resume = session.say_how_to_resume
    save_inputs(run, experiment, session.dataset)
    if session.kind == "tune":
        run.write_requested_experiment(session.requested)
    for line in describe_run(experiment, session.dataset):
        session.log.info(line)
    if run.storage is not None:
        # torchrun's workers are on this machine, and write into the folder itself.
        elsewhere = experiment.workers.count > 1 and torchrun.world_size() == 1
        owner.mirror.enter_context(run_storage.open_mirror(run, elsewhere=elsewhere))


@dataclass
class _RunOwner:
    """Records a failure in the run folder, or removes the folder if nothing was trained; then closes mirror and run.

    The error gets a note with the command that goes on with the run. A context manager; until it is given a run it does
    nothing."""

    kind: str
    run: RunFolder | None = None
    requested: Experiment | None = None
    mirror: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def take(self, run: RunFolder, requested: Experiment) -> None:
        """Own this run from now on."""
        self.run, self.requested = run, requested

    def __enter__(self) -> "_RunOwner":
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback_: types.TracebackType | None) -> None:
        if self.run is None:
            return
        with contextlib.closing(self.run), self.mirror:
            if error is not None:
                self._record(error, self.run)

    def _record(self, error: BaseException, run: RunFolder) -> None:
        assert self.requested is not None
        if not (run.folder / "result.json").exists():
            record_failure(run, self.kind, error, self.requested)
        if run.folder.exists():
            error.add_note(f"resume it: {resume_command(self.kind, run.folder)}")
            error.add_note(str(run.folder))
        else:  # nothing was trained
            run_storage.delete_copy(run)


def resume_command(kind: str, folder: Path) -> str:
    """The command that goes on with a run."""
    return command_line(kind, "--resume", folder)


def _measure_batch(requested: Experiment, resolved: Experiment, dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """`find_fastest_batch` on a machine like those of the workers."""
    if requested.workers.count == 1 or torchrun.world_size() > 1:
        return find_fastest_batch(resolved, dataset)
    from ..launch.cluster import connect, refuse_unplaceable
    from ..launch.remote_call import MeasurementNode

    resources = connect()
    refuse_unplaceable(requested.workers, resources)
    return MeasurementNode(requested, dataset, resources).call(find_fastest_batch, requested)


def find_fastest_batch(resolved: Experiment, dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """Measure data.batch_auto: the settings that fix it, so that a resumed run has the same, and lines for the log."""
    batch, speeds = step_time.find_batch_size(resolved, dataset)
    lines = [f"  {size:>5} {speed:8,.0f} images/s{' *' if size == batch else ''}" for size, speed in speeds.items()]
    lines.insert(0, f"data.batch {batch} was measured as the fastest that fits:")
    return {"data.batch": batch, "data.batch_auto": False}, lines


def _resume_run(kind: str, request: Request) -> tuple[RunFolder, Experiment]:
    """The run that --resume names, and its experiment with the few changes that a resumed run may have."""
    options = request.options
    for given in ("name", "recipe", "experiment"):
        if getattr(options, given):
            raise ConfigError(f"--{given} cannot be used with --resume: the run keeps its own")
    folder = Path(options.resume)
    folder = folder if folder.is_dir() or len(folder.parts) > 1 else Path(options.out) / options.resume
    storage = run_storage.open_earlier(options.storage, folder)
    run = RunFolder.resume(folder)
    run.storage = storage
    try:
        is_search = (run.folder / REQUESTED_EXPERIMENT).exists()
        if is_search != (kind == "tune"):
            raise ConfigError(
                f"{run.folder} is {'a' if is_search else 'not a'} search: resume it with "
                f"{resume_command('tune' if is_search else 'train', run.folder)}"
            )
        file = run.folder / (REQUESTED_EXPERIMENT if is_search else "experiment.yaml")
        experiment = read_experiment(file)
        check_trusted(experiment.model.name, file)
        if "data.path" not in request.changes:
            refuse_endpoint(experiment.data.path, file, "--data.path")
        return run, _apply_resumable(kind, experiment, request.changes)
    except ClassifierError:
        run.close()
        raise


def _apply_resumable(kind: str, experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    """The experiment with the changes. ConfigError for one that a resumed run may not have."""
    for name, value in changes.items():
        if name not in RESUMABLE[kind]:
            allowed = ", ".join(f"--{name}" for name in RESUMABLE[kind])
            raise ConfigError(f"--{name} cannot be changed on --resume: only {allowed} can")
        if name in ("train.epochs", "search.trials") and value < experiment.get(name):
            raise ConfigError(
                f"--{name} {value} is fewer than the run's {experiment.get(name)}: on --resume it can only grow"
            )
    changed = experiment.override_all(changes)
    if changed.workers.count != experiment.workers.count:
        changed = changed.override("train.threads", None)  # each worker's share of the cores is different now
    return changed
