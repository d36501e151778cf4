"""The trainings of a study, in parallel on Ray: the folds of a cross-validation, the sizes of a learning curve.

Each is a complete run in its own folder, which every other verb accepts. Another call resumes where the last one ended.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier import data
from classifier.api.missing import Missing
from classifier.api.testing import run_test
from classifier.api.training import calibrate_training
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.errors import ClassifierError, ConfigError, RunError
from classifier.runs.folder import PREDICTIONS, REQUESTED_EXPERIMENT, RunFolder, read_history, read_result
from classifier.runs.recorder import record_training, result_fields
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.resolve import resolve

from ..cli.console import RunLog
from ..cli.verb import Request, TrainingOptions
from ..launch.cluster import (
    DriverContext,
    connect,
    largest_node_cores,
    refuse_unplaceable,
    worker_resources,
)
from ..launch.free_cores import share_free_cores

POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training: the name of its run, its changes to the study's experiment, and whether it is tested."""

    name: str
    changes: dict[str, Any]
    is_tested: bool


def train_runs(
    experiment: Experiment, runs: list[StudyRun], folder: Path, *, log: RunLog, should_stop: Callable[[], bool]
) -> Iterator[tuple[StudyRun, dict[str, Any]]]:
    """Train all runs in `folder`, as many at once as the cluster has room for; yields each with its result as it ends.

    Ends early once `should_stop()` is true; finished runs are kept. ConfigError if the cluster has no room or a
    training has several workers; RunError if one fails.
    """
    import ray
    from ray.exceptions import RayError

    if experiment.workers.count > 1:
        raise ConfigError(
            f"workers.count {experiment.workers.count}: each training of a study has one worker; leave it out"
        )
    log.begin_phase("starting Ray")
    resources = connect(dashboard=False)
    if experiment.workers.cpus is None and not resources.get("GPU"):
        concurrent = max(1, min(int(resources["CPU"]), len(runs)))
        cpus = min(int(resources["CPU"]) // concurrent, int(largest_node_cores()))
        experiment = experiment.override("workers.cpus", float(max(1, cpus)))
    experiment = share_free_cores(experiment)
    refuse_unplaceable(experiment.workers, resources)
    needs = worker_resources(experiment.workers, resources)
    remote = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=2)(_train_remotely)
    pending, driver = {}, DriverContext.current()
    for run in runs:
        run_folder = folder / run.name
        if _is_finished(run_folder):
            yield run, read_result(run_folder)
            continue
        settings = experiment.override_all(run.changes).as_dict()
        pending[remote.remote(settings, str(run_folder.resolve()), run.is_tested, driver)] = run
    began, count = time.monotonic(), len(pending)
    epochs = {run.name: run.changes.get("train.epochs", experiment.train.epochs) for run in pending.values()}
    log.begin_phase(f"training {count} models")
    while pending and not should_stop():
        ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for reference in ready:
            run = pending.pop(reference)
            try:
                result = ray.get(reference)
            except RayError as error:
                raise RunError(f"{folder / run.name} failed: {str(error).strip().rpartition(chr(10))[2]}") from None
            if isinstance(result, str):
                raise ConfigError(f"{run.name}: {result}")
            yield run, result
        if log.is_live:
            share = sum(len(read_history(folder / name)) / total for name, total in epochs.items()) / count
            if share:
                seconds_left = (time.monotonic() - began) * max(0.0, 1 / share - 1)
                log.begin_phase(f"training {count} models, {count - len(pending)} done", seconds_left)
    for reference in pending:
        ray.cancel(reference, force=True)


def _is_finished(run_folder: Path) -> bool:
    return (run_folder / "result.json").is_file() and read_result(run_folder)["status"] == "finished"


def _train_remotely(
    settings: dict[str, Any], folder: str, is_tested: bool, driver: DriverContext
) -> dict[str, Any] | str:
    """Train, calibrate and test in this process; the result, or the message of a user error."""
    from classifier.errors import ClassifierError

    try:
        driver.enter()
        return _train_run(Experiment.from_dict(settings), Path(folder), is_tested)
    except ClassifierError as error:
        return str(error)


def _train_run(experiment: Experiment, folder: Path, is_tested: bool) -> dict[str, Any]:
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    is_resumed = (folder / "experiment.yaml").is_file()
    run = _resume(folder) if is_resumed else RunFolder.create(folder.parent, folder.name)
    try:
        run.write_experiment(experiment)
        group = ProcessGroup.current(pick_device(experiment.train.device))
        for _ in record_training(run, experiment, dataset, group=group):
            pass
        missing = Missing()
        loaded = calibrate_training(run, dataset, missing)
        if is_tested:
            predictions = folder / PREDICTIONS["test"]  # the study's scores are made of them
            options = {"dataset": dataset, "loaded": loaded, "missing": missing, "again": not predictions.exists()}
            loaded = run_test(folder, [folder], device="auto", **options).loaded
            if not predictions.exists():
                raise RunError("; ".join(missing.describe()))
        return run.write_result("train", "finished", **result_fields(folder, loaded), **missing.as_field())
    finally:
        run.close()


def _resume(folder: Path, timeout_seconds: float = 10.0) -> RunFolder:
    """Resume a run that another process started; if that process has just been killed, wait for its lock to go."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return RunFolder.resume(folder)
        except RunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def search_runs(
    experiment: Experiment,
    runs: list[StudyRun],
    folder: Path,
    *,
    log: RunLog,
    should_stop: Callable[[], bool],
    search: Callable[[Request], int],
) -> Iterator[tuple[StudyRun, dict[str, Any]]]:
    """As `train_runs`, with a search in place of each training; one at a time, since each uses the whole cluster.

    search: runs the verb tune, in this process: one process answers Ctrl-C, and none is left if it is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        run_folder = folder / run.name
        if not _is_finished(run_folder):
            if (run_folder / REQUESTED_EXPERIMENT).is_file():
                options = TrainingOptions(resume=str(run_folder))
            else:
                file = folder / f"{run.name}.yaml"
                file.write_text(dump_experiment(experiment.override_all(run.changes)), encoding="utf-8")
                options = TrainingOptions(experiment=str(file), out=str(folder), name=run.name)
            log.clear()  # the search has the terminal
            try:
                search(Request(options, {}))
            except ClassifierError as error:
                raise RunError(f"the search in {run_folder} failed: {error}") from None
            if should_stop():
                return
        yield run, read_result(run_folder)
