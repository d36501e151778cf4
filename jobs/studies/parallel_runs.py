"""Several trainings of one experiment, side by side on Ray: the folds of a cross-validation, the sizes of a curve.

Each is a whole run, in a folder of its own, which any other verb takes; a second call goes on where the first ended.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.errors import ConfigError, RunError
from classifier.evaluation.calibrate import calibrate_saved_bundle
from classifier.runs.folder import REQUESTED_EXPERIMENT, Run, read_result
from classifier.runs.recorder import result_fields, record_training
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.resolve import resolve
from jobs.cli.environment import VERBS
from jobs.launch.cluster import (
    connect,
    enter_driver_folder,
    largest_node_cores,
    refuse_unplaceable,
    worker_resources,
)
from jobs.steps import test_model

POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training: its run's name, the settings that set it apart, and whether its test split is read."""

    name: str
    changes: dict[str, Any]
    is_tested: bool


def train_runs(
    experiment: Experiment, runs: list[StudyRun], folder: Path, *, should_stop: Callable[[], bool]
) -> Iterator[tuple[StudyRun, dict[str, Any]]]:
    """Train all of them below `folder`, as many at once as there is room for; each with its result, as they end.

    Ends early where `asked` answers true: what was trained by then is kept. ConfigError if the cluster has no room, or
    a training would launch workers; RunError if one fails.
    """
    import ray
    from ray.exceptions import RayError

    if experiment.workers.count > 1:
        raise ConfigError(f"workers.count {experiment.workers.count}: each training here has one worker; leave it out")
    resources = connect(dashboard=False)
    if experiment.workers.cpus is None and not resources.get("GPU"):
        at_once = max(1, min(int(resources["CPU"]), len(runs)))
        cpus = min(int(resources["CPU"]) // at_once, int(largest_node_cores()))
        experiment = experiment.override("workers.cpus", float(max(1, cpus)))
    refuse_unplaceable(experiment.workers, resources)
    needs = worker_resources(experiment.workers, resources)
    remote = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=2)(_train_remotely)
    pending, cwd = {}, os.getcwd()
    for member in runs:
        done = folder / member.name / "result.json"
        if done.is_file() and read_result(done.parent)["status"] == "finished":
            yield member, read_result(done.parent)
            continue
        plain = experiment.override_all(member.changes).as_dict()
        pending[remote.remote(plain, str((folder / member.name).resolve()), member.is_tested, cwd)] = member
    while pending and not should_stop():
        ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for reference in ready:
            member = pending.pop(reference)
            try:
                said = ray.get(reference)
            except RayError as error:
                raise RunError(f"{folder / member.name} failed: {str(error).strip().rpartition(chr(10))[2]}") from None
            if isinstance(said, str):
                raise ConfigError(f"{member.name}: {said}")
            yield member, said
    for reference in pending:
        ray.cancel(reference, force=True)


def _train_remotely(plain: dict[str, Any], folder: str, tested: bool, cwd: str) -> dict[str, Any] | str:
    """Train, calibrate and test in this process; the result. A user's mistake comes back as its sentence."""
    from classifier.errors import ClassifierError

    try:
        enter_driver_folder(cwd)
        return _train_run(Experiment.from_dict(plain), Path(folder), tested)
    except ClassifierError as error:
        return str(error)


def _train_run(experiment: Experiment, folder: Path, tested: bool) -> dict[str, Any]:
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    begun = (folder / "experiment.yaml").is_file()
    run = _resume(folder) if begun else Run.create(folder.parent, folder.name)
    try:
        run.write_experiment(experiment)
        for _ in record_training(run, experiment, dataset, group=ProcessGroup.current(pick_device(experiment.train.device))):
            pass
        loaded, reads = None, 0
        if len(dataset.validation):
            loaded = calibrate_saved_bundle(folder, dataset, folder)
        if tested:
            result = test_model.run_test(folder, [folder], device="auto", dataset=dataset, loaded=loaded)
            loaded, reads = result.loaded, int(result.predictions is not None)
        return run.write_result("train", "finished", **result_fields(folder, loaded), test_reads=reads)
    finally:
        run.close()


def _resume(folder: Path, patience: float = 10.0) -> Run:
    """The run that an earlier process began; where that one was ended just now, its lock may need a moment to go."""
    end = time.monotonic() + patience
    while True:
        try:
            return Run.resume(folder)
        except RunError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def search_runs(
    experiment: Experiment, runs: list[StudyRun], folder: Path, *, should_stop: Callable[[], bool]
) -> Iterator[tuple[StudyRun, dict[str, Any]]]:
    """The same with a search in place of each training: one after the other, since each takes the whole cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    for member in runs:
        home = folder / member.name
        if not ((home / "result.json").is_file() and read_result(home)["status"] == "finished"):
            file = folder / f"{member.name}.yaml"
            file.write_text(dump_experiment(experiment.override_all(member.changes)), encoding="utf-8")
            words = ["--resume", str(home)] if (home / REQUESTED_EXPERIMENT).is_file() else ["--experiment", str(file)]
            words += [] if "--resume" in words else ["--out", str(folder), "--name", member.name]
            process = subprocess.Popen([sys.executable, str(VERBS / "tune.py"), *words])
            while process.poll() is None:
                if should_stop():
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    return
                time.sleep(POLL_SECONDS)
            if process.returncode:
                raise RunError(f"the search in {home} failed (exit code {process.returncode}): its run.log says why")
        yield member, read_result(home)
