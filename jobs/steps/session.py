"""What the verbs that train have in common: begin a run folder, go on with one, and end it with a result."""

import contextlib
import json
import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError, DivergedError
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
from classifier.profiling import step_time
from classifier.report import png, run_page
from classifier.runs.folder import REQUESTED_EXPERIMENT, Run
from classifier.runs.recorder import result_fields, record_training
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.runtime.timing import Deadline
from classifier.storage.atomic import write_atomically
from classifier.training.loop import StepProgress
from classifier.training.resolve import resolve
from jobs.cli.console import RunLog, describe_run
from jobs.cli.interrupts import Interrupts
from jobs.cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request
from jobs.launch import run_storage, torchrun

# What may change when a run is taken up again.
RESUMABLE = {
    "train": ("workers.count", "workers.min", "workers.wait", "workers.cpus", "workers.gpus", "train.epochs"),
    "tune": ("workers.wait", "workers.cpus", "workers.gpus", "search.trials", "search.minutes", "search.keep"),
}
# The result that a run had before it was taken up again.
EARLIER_RESULT = "result.earlier.json"


@dataclass(frozen=True)
class Session:
    """A run that this process works on: the experiment as it was asked for, and as it was resolved."""

    kind: str
    run: Run
    log: RunLog
    interrupts: Interrupts
    requested: Experiment
    experiment: Experiment
    dataset: Dataset


@contextlib.contextmanager
def open_session(kind: str, request: Request) -> Iterator[Session]:
    """A new run, or with --resume an earlier one, with its data loaded and its experiment resolved and saved.

    A mistake that shows before training began leaves no folder behind; a later failure is written into result.json.
    """
    options, mirror = request.options, contextlib.ExitStack()
    if options.resume:
        run, experiment = _resume_run(kind, request)
    else:
        experiment = request.experiment()
        name = options.name or default_name(kind, experiment.data.path, options.out)
        storage = run_storage.open_new(options.storage, name)
        run = Run.create(options.out, name)
        run.storage = storage
    try:
        with Interrupts() as interrupts, RunLog(run.folder / "run.log") as journal:
            dataset = data.load(experiment.data, journal.progress_bar)
            resolved = resolve(experiment, dataset)
            # A search's plan finds the batch, where its trials run.
            if resolved.data.batch_auto and kind != "tune":
                found, lines = _measure_batch(experiment, resolved, dataset)
                experiment, resolved = experiment.override_all(found), resolved.override_all(found)
                for line in lines:
                    journal.info(line)
            run.write_experiment(resolved)
            if kind == "tune":
                run.write_requested_experiment(experiment)
            write_atomically(run.folder / "split.json", json.dumps(dataset.split_record, indent=1) + "\n")
            for line in describe_run(resolved, dataset):
                journal.info(line)
            if run.storage is not None:
                # torchrun's workers are on this machine, and write into the folder itself.
                elsewhere = resolved.workers.count > 1 and torchrun.world_size() == 1
                mirror.enter_context(run_storage.open_mirror(run, elsewhere=elsewhere))
            yield Session(kind, run, journal, interrupts, experiment, resolved, dataset)
    except BaseException as error:
        if isinstance(error, ClassifierError) and not isinstance(error, DivergedError) and not run.has_started:
            run.discard()
            run_storage.delete_copy(run)
        elif not (run.folder / "result.json").exists():
            with (run.folder / "run.log").open("a", encoding="utf-8") as log:
                log.write(f"{error}\n" if isinstance(error, ClassifierError) else traceback.format_exc())
            run.write_result(kind, "failed", error=str(error) or type(error).__name__, config=experiment.as_dict())
        raise
    finally:
        with contextlib.closing(run):
            mirror.close()


def _measure_batch(experiment: Experiment, resolved: Experiment, dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """`best_batch`, on a machine such as the workers have."""
    if experiment.workers.count == 1 or torchrun.world_size() > 1:
        return find_fastest_batch(resolved, dataset)
    from jobs.launch.cluster import connect, refuse_unplaceable
    from jobs.launch.remote_call import MeasurementNode

    resources = connect()
    refuse_unplaceable(experiment.workers, resources)
    return MeasurementNode(experiment, dataset, resources).call(find_fastest_batch, experiment)


def find_fastest_batch(resolved: Experiment, dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """data.batch_auto: settings as measured once, so that a resumed run has the same, and what to say of it."""
    batch, speeds = step_time.find_batch_size(resolved, dataset)
    lines = [f"  {size:>5} {speed:8,.0f} images/s{' *' if size == batch else ''}" for size, speed in speeds.items()]
    return {"data.batch": batch, "data.batch_auto": False}, [f"data.batch {batch} is the fastest that fits:", *lines]


@contextlib.contextmanager
def open_run(kind: str, options: Any, subject: str, *, keep: bool = False) -> Iterator[tuple[Run, RunLog]]:
    """A run folder for a verb that trains nothing; it is gone again if the verb fails, unless `keep`."""
    run = Run.create(options.out, options.name or default_name(kind, subject, options.out))
    try:
        with RunLog(run.folder / "run.log") as journal:
            yield run, journal
    except BaseException:
        if not keep:
            run.discard()
        raise
    finally:
        run.close()


def _resume_run(kind: str, request: Request) -> tuple[Run, Experiment]:
    """The run that --resume names, and its experiment with the few changes that a resumed run may have."""
    options = request.options
    for given in ("name", "recipe", "experiment"):
        if getattr(options, given):
            raise ConfigError(f"--{given} cannot be used with --resume: the run keeps its own")
    folder = Path(options.resume)
    folder = folder if folder.is_dir() or len(folder.parts) > 1 else Path(options.out) / options.resume
    storage = run_storage.open_earlier(options.storage, folder)
    run = Run.resume(folder)
    run.storage = storage
    try:
        if (run.folder / REQUESTED_EXPERIMENT).exists() != (kind == "tune"):
            raise ConfigError(
                f"{run.folder} is {'no' if kind == 'tune' else 'a'} search: jobs/{kind}.py cannot go on with it"
            )
        experiment = read_experiment(run.folder / (REQUESTED_EXPERIMENT if kind == "tune" else "experiment.yaml"))
        for name, value in request.changes.items():
            if name not in RESUMABLE[kind]:
                allowed = ", ".join(f"--{name}" for name in RESUMABLE[kind])
                raise ConfigError(f"--{name} cannot be changed on --resume: only {allowed} can")
            if name in ("train.epochs", "search.trials") and value < experiment.get(name):
                raise ConfigError(f"--{name} {value} is fewer than the run's {experiment.get(name)}: it can grow only")
        changed = experiment.override_all(request.changes)
        if changed.workers.count != experiment.workers.count:
            changed = changed.override("train.threads", None)  # each worker's share of the cores is another
        if (run.folder / "result.json").exists():  # while it goes on it has no result
            (run.folder / "result.json").replace(run.folder / EARLIER_RESULT)
        return run, changed
    except ClassifierError:
        run.close()
        raise


def earlier_test_reads(folder: Path) -> int:
    """How often the test split was read before the run was taken up again: it is no longer unseen."""
    path = folder / EARLIER_RESULT
    return json.loads(path.read_text()).get("test_reads", 0) if path.exists() else 0


def default_name(kind: str, path: str, out: str) -> str:
    """Verb, data set and time; a number too, where two runs begin in one second."""
    subject = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).stem).strip("-") or "data"
    name = f"{kind}-{subject}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = [n for n in range(1, 100) if not (Path(out) / (name if n == 1 else f"{name}-{n}")).exists()]
    return name if taken[0] == 1 else f"{name}-{taken[0]}"


def train_here(work: Session) -> str | None:
    """Train in this process, together with others where torchrun launched them; why it stopped early, or None."""
    if torchrun.world_size() == 1:
        return train_in_process(work, ProcessGroup.current(pick_device(work.experiment.train.device)))
    with torchrun.join_workers(work.experiment, work.run.folder) as (group, *_):
        return train_in_process(work, group)


def train_in_process(work: Session, group: ProcessGroup, deadline: Deadline | None = None) -> str | None:
    """Train in this process and tell each epoch; why it stopped early, or None. A missed deadline stops as users do."""
    stopped = None

    def see(step: StepProgress) -> None:
        work.log.show_step(step)
        if deadline is not None:
            deadline.update(step.step / (step.steps // step.epochs), step.epochs)

    for epoch in record_training(
        work.run,
        work.experiment,
        work.dataset,
        group=group,
        should_stop=lambda: work.interrupts.stop_requested or (deadline is not None and deadline.is_missed),
        on_step=see,
    ):
        work.log.log_epoch(epoch.row(), work.experiment.train.epochs)
        stopped = epoch.stopped
    return stopped


def train_on_ray(work: Session) -> str | None:
    """Train on Ray workers; why it stopped early, or None."""
    from jobs.launch import workers
    from jobs.launch.cluster import connect, refuse_unplaceable, refuse_unshared

    refuse_unplaceable(work.experiment.workers, connect())
    refuse_unshared(work.run)
    for row in workers.train(work.run, work.requested, should_stop=lambda: work.interrupts.stop_requested):
        work.log.log_epoch(row, work.experiment.train.epochs)
    return "asked" if work.interrupts.stop_requested else None


def finish_training(work: Session, stopped: str | None) -> int:
    """Write result.json and the curves, say where everything lies, and give the exit code."""
    run, interrupted, loaded = work.run, stopped == "asked", None
    if not interrupted and len(work.dataset.validation):
        loaded = calibrate_saved_bundle(run.folder, work.dataset, run.folder)
        work.log.info(describe_calibration(loaded.bundle))
        if work.experiment.workers.count > 1:
            run_storage.upload_bundle(run)
    parts = result_fields(run.folder, loaded)
    run.write_result(work.kind, "stopped" if interrupted else "finished", **parts, test_reads=earlier_test_reads(run.folder))
    png.curves_png(run.history(), run.folder / "curves.png")
    page = run_page.write(run.folder)
    validation = parts["validation"]
    said = (
        f"validation accuracy {validation['accuracy']:.2%} on {validation['count']:,} images"
        if validation
        else "nothing was kept to validate it"
    )
    work.log.info(
        f"{'stopped' if interrupted else 'finished'} after {run.seconds:.0f} s: {said}, "
        f"{parts['parameters']:,} parameters"
    )
    if parts["input_wait"] is not None:
        work.log.info(f"waiting for images took {parts['input_wait']:.1%} of the training steps")
    if interrupted:
        work.log.info(f"go on with it: python jobs/{work.kind}.py --resume {run.folder}")
    else:
        work.log.info(f"test it, once: python jobs/evaluate.py {run.folder}")
    work.log.info(f"all about it: {page}")
    work.log.info(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE
