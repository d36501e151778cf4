"""Train on Ray workers: placed on the cluster, restarted after failures, with their history as it is written."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier.config.experiment import Experiment
from classifier.errors import ClassifierError, RunError
from classifier.runs.folder import RunFolder
from classifier.runtime.distributed import ProcessGroup
from classifier.storage.atomic import retry_io
from classifier.training.checkpoint import CheckpointStore

from . import run_storage
from .cluster import DriverContext, connect, worker_resources

logger = logging.getLogger(__name__)
# Ray restarts a worker group without limit by default: one that cannot start or keeps failing is an error.
MAX_FAILURES = 3
# Asks the workers to stop: the driver creates this file in the run folder; the loop sees it, saves and ends.
STOP_FILE = ".stop"
# The error that a worker gave up with, and that a restart cannot fix.
FATAL_ERROR_FILE = ".last_word"
# Between two downloads of a history that is in storage.
POLL_SECONDS = 2.0


def train(
    run: RunFolder, experiment: Experiment, *, should_stop: Callable[[], bool], merged: bool = False
) -> Iterator[dict[str, Any]]:
    """Train on Ray workers; yields the rows of the history as they are written. merged: also on the validation images.

    The workers share the run folder, which every node must reach. If the run has a storage they use folders of their
    own, and the run folder gets their files at the end.
    Ray's trainer runs in a thread, where its signal handlers cannot abort the workers before they have saved.
    """
    stop, storage = run.folder / STOP_FILE, run.storage
    for name in (STOP_FILE, FATAL_ERROR_FILE):
        (run.folder / name).unlink(missing_ok=True)
        if storage is not None:
            storage.remove(name)
    errors: list[BaseException] = []
    thread = threading.Thread(target=_run_trainer, args=(run, experiment, merged, errors), daemon=True)
    thread.start()
    yielded, next_poll = len(run.history()), time.monotonic()
    try:
        while thread.is_alive():
            thread.join(timeout=0.3)
            if should_stop() and not stop.exists():
                _request_stop(run)
            if storage is not None:
                if time.monotonic() < next_poll:
                    continue
                next_poll = time.monotonic() + POLL_SECONDS
                _download_history(run)
            rows = run.history()
            yielded = min(yielded, len(rows))  # a restarted worker truncated the history
            yield from rows[yielded:]
            yielded = len(rows)
        if storage is not None:
            retry_io(lambda: storage.download_folder(run.folder, include=_is_result), storage.root)
        yield from run.history()[yielded:]  # rows written while the caller was busy with the last ones
    finally:
        if thread.is_alive():  # the caller has stopped iterating
            _request_stop(run)
            thread.join(timeout=60)
        stop.unlink(missing_ok=True)
    if errors:
        raise errors[0]


def _request_stop(run: RunFolder) -> None:
    (run.folder / STOP_FILE).touch()
    if run.storage is not None:
        with contextlib.suppress(OSError):  # tried again as long as the file is missing
            run.storage.upload(run.folder / STOP_FILE, STOP_FILE)


def _download_history(run: RunFolder) -> None:
    assert run.storage is not None
    with contextlib.suppress(OSError):  # it may not exist yet, or the storage may be unreachable for a while
        run.storage.download("history.jsonl", run.folder / "history.jsonl")


def _is_result(name: str) -> bool:
    """Whether the driver needs this file of its workers' folder; checkpoints are only for the workers."""
    return name.partition("/")[0] in run_storage.WORKER_FILES and not name.startswith("checkpoints/")


def _run_trainer(run: RunFolder, experiment: Experiment, merged: bool, errors: list[BaseException]) -> None:
    try:
        run_trainer(run, experiment, merged)
    except BaseException as error:
        errors.append(error)


def run_trainer(run: RunFolder, experiment: Experiment, merged: bool = False) -> None:
    """Run Ray Train to the end. ClassifierError as raised in a worker; RunError if the workers keep failing."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from .process_group import WorkersConfig

    resources, storage, workers = worker_resources(experiment.workers, connect()), run.storage, experiment.workers

    def trainer() -> TorchTrainer:
        return TorchTrainer(
            _worker,
            torch_config=WorkersConfig(),
            train_loop_config={
                "folder": str(run.folder.resolve()),
                "driver": DriverContext.current(),
                "storage": storage,
                "scratch": f"{run.folder.name}-{uuid.uuid4().hex[:8]}",
                "experiment": experiment.as_dict(),
                "merged": merged,
            },
            scaling_config=ScalingConfig(
                num_workers=(workers.min, workers.count) if workers.min else workers.count,
                use_gpu="GPU" in resources,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                # A new name each time: the loop resumes from the run's own checkpoints, and Ray must not from its.
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=f"{storage.root}/ray" if storage else str(run.folder.resolve() / "ray"),
                storage_filesystem=storage.system if storage else None,
                failure_config=FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=MAX_FAILURES),
            ),
        )

    while True:
        before = _newest_step(run)
        try:
            error = trainer().fit().return_value
        except TrainingFailedError as failure:
            # Many failures in a long run are no reason to end it; failures without a new checkpoint are.
            if _newest_step(run) == before:
                raise RunError(_describe_failure(failure)) from failure
            logger.warning("the workers failed more than %d times, but made progress: restarting them", MAX_FAILURES)
            continue
        if isinstance(error, ClassifierError):
            raise error
        return


def _describe_failure(failure: Exception) -> str:
    """Why the workers failed for good, in one sentence with a fix."""
    text = str(failure).strip()
    last_line = text.rpartition("\n")[2].strip()
    fixes = {
        "connectFullMesh": "each host name must resolve to its address on the others, not to 127.0.0.1 (/etc/hosts)",
        "WorkerGroupStartupTimeoutError": "the cluster has no room for them, see ray status",
    }
    fix = next((fix for pattern, fix in fixes.items() if pattern in text), "see their output in run.log")
    return f"the workers failed {MAX_FAILURES + 1} times without progress ({last_line[:300]}): {fix}"


def _newest_step(run: RunFolder) -> int:
    if run.storage is not None:
        return retry_io(run.storage.newest_step, run.storage.root)
    return CheckpointStore(run.checkpoints).newest_step()


def _worker(config: dict[str, Any]) -> ClassifierError | None:
    """Run one worker to its end. An error that the user must fix is returned, so that Ray does not retry."""
    if sys.path[0].endswith("jobs"):  # Ray copies the driver's script folder; a verb there could shadow a library
        sys.path.pop(0)
    from .process_group import join_workers

    with join_workers() as group:
        return _train(config, group)


def _train(config: dict[str, Any], group: ProcessGroup) -> ClassifierError | None:
    import ray.train

    from classifier import data
    from classifier.runs.recorder import record_training
    from classifier.training.resolve import resolve

    from .worker_log import tee_output

    # Ray logs each report, which is in run.log already; this logger is named after its file.
    reporter = Path(ray.train.__file__).parent / "v2" / "_internal" / "execution" / "context.py"
    logging.getLogger(str(reporter)).setLevel(logging.WARNING)
    config["driver"].enter()
    run = RunFolder(Path(config["folder"]), config["storage"])
    if run.storage is not None:
        run.folder = Path(tempfile.gettempdir(), "classifier", config["scratch"])
        run.folder.mkdir(parents=True, exist_ok=True)
    if fatal := group.broadcast(_read_fatal_error(run) if group.is_first else None):
        return RunError(fatal)
    log = "run.log" if run.storage is None else run_storage.WORKER_LOG
    with tee_output(run.folder / log, f"worker {group.rank}"):
        # For people and the fire drill, which find the process by this line (jobs/steps/training_process.py).
        print(f"process {os.getpid()} on node {ray.get_runtime_context().get_node_id()} of {socket.gethostname()}")
        try:
            experiment = Experiment.from_dict(config["experiment"])
            dataset = data.load(experiment.data)
            if config["merged"]:
                dataset = dataset.merge_validation(experiment)
            experiment = group.broadcast(resolve(experiment, dataset))
            with run_storage.mirror_worker_folder(run, fetch=STOP_FILE) if group.is_first else contextlib.nullcontext():
                if group.is_first:
                    run.write_experiment(experiment)
                stop = run.folder / STOP_FILE
                hooks = {"should_stop": stop.exists, "should_save": _PreemptionNotice()}
                for epoch in record_training(run, experiment, dataset, group=group, **hooks):
                    ray.train.report(epoch.row())
        except RunError as error:
            if group.world_size == 1:
                return error
            # The others wait for this worker: all are restarted, and end when they read this error.
            _write_fatal_error(run, error)
            raise
        except ClassifierError as error:
            return error
    return None


class _PreemptionNotice:
    """Returns true once per notice that a node will be preempted, so that a checkpoint is saved in time.

    Ray's public function asks all workers at every call; this reads what Ray has told this worker.
    """

    def __init__(self) -> None:
        from ray.train.v2._internal.execution.context import get_train_context

        self.context, self.last = get_train_context().preemption_context, None

    def __call__(self) -> bool:
        info = self.context.preemption_info
        is_new, self.last = info is not None and info != self.last, info
        return is_new


def _write_fatal_error(run: RunFolder, error: RunError) -> None:
    (run.folder / FATAL_ERROR_FILE).write_text(str(error), encoding="utf-8")
    if run.storage is not None:
        with contextlib.suppress(OSError):  # then the workers are restarted as after any failure
            run.storage.upload(run.folder / FATAL_ERROR_FILE, FATAL_ERROR_FILE)


def _read_fatal_error(run: RunFolder) -> str | None:
    """The error that an earlier worker gave up with, if there is one."""
    if run.storage is not None:
        text = retry_io(lambda: run.storage and run.storage.read(FATAL_ERROR_FILE), run.storage.root)
        return text.decode() if text else None
    path = run.folder / FATAL_ERROR_FILE
    return path.read_text(encoding="utf-8") if path.exists() else None
