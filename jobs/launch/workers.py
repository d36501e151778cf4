"""A training on Ray workers: placed on the cluster, begun again after faults, and told as it goes."""

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
from classifier.runs.folder import Run
from classifier.runtime.distributed import COLLECTIVE_TIMEOUT, ProcessGroup
from classifier.storage.atomic import retry_io
from classifier.training.checkpoint import CheckpointStore
from jobs.launch import run_storage
from jobs.launch.cluster import connect, enter_driver_folder, worker_resources

logger = logging.getLogger(__name__)
# Ray retries a worker group for ever by default: a group that cannot start or keeps dying is an error, not a wait.
FAILURES = 3
# A worker's polite stop: the driver makes this file in the run folder, the loop sees it and commits.
STOP_FILE = ".stop"
# What a worker gave up for, which no new one can mend.
LAST_WORD = ".last_word"
# Seconds between two looks at a journal that lies in storage.
LOOK_EVERY = 2.0


def train(
    run: Run, experiment: Experiment, *, should_stop: Callable[[], bool], merged: bool = False
) -> Iterator[dict[str, Any]]:
    """Train on Ray workers; yield the journal's lines as they come. merged: on the validation images too.

    The workers share the run's folder, which every node must reach; or they have one of their own where the run has a
    storage, and the folder gets what they made in the end.
    Ray's trainer works in a thread of its own, since its signal handlers would abort the workers before they saved.
    """
    stop, storage = run.folder / STOP_FILE, run.storage
    for name in (STOP_FILE, LAST_WORD):
        (run.folder / name).unlink(missing_ok=True)
        if storage is not None:
            storage.remove(name)
    outcome: dict[str, Any] = {}
    thread = threading.Thread(target=_launch, args=(run, experiment, merged, outcome), daemon=True)
    thread.start()
    seen, look = len(run.history()), time.monotonic()
    try:
        while thread.is_alive():
            thread.join(timeout=0.3)
            if should_stop() and not stop.exists():
                _ask_to_stop(run)
            if storage is not None:
                if time.monotonic() < look:
                    continue
                look = time.monotonic() + LOOK_EVERY
                _bring_journal(run)
            rows = run.history()
            seen = min(seen, len(rows))  # a restarted worker rewound the journal
            yield from rows[seen:]
            seen = len(rows)
        if storage is not None:
            retry_io(lambda: storage.download_folder(run.folder, include=_is_result), storage.root)
        yield from run.history()[seen:]  # what was written while the caller was busy with the last lines
    finally:
        if thread.is_alive():  # the caller wants no more of it
            _ask_to_stop(run)
            thread.join(timeout=60)
        stop.unlink(missing_ok=True)
    if "error" in outcome:
        raise outcome["error"]


def _ask_to_stop(run: Run) -> None:
    (run.folder / STOP_FILE).touch()
    if run.storage is not None:
        with contextlib.suppress(OSError):  # asked again while the file is missing there
            run.storage.upload(run.folder / STOP_FILE, STOP_FILE)


def _bring_journal(run: Run) -> None:
    assert run.storage is not None
    with contextlib.suppress(OSError):  # it may not be there yet, or the storage is away for a while
        run.storage.download("history.jsonl", run.folder / "history.jsonl")


def _is_result(name: str) -> bool:
    """What a driver wants of its workers' folder: not what only a worker goes on from."""
    return name.partition("/")[0] in run_storage.WORKER_FILES and not name.startswith("checkpoints/")


def _launch(run: Run, experiment: Experiment, merged: bool, outcome: dict[str, Any]) -> None:
    try:
        run_trainer(run, experiment, merged)
    except BaseException as error:
        outcome["error"] = error


def run_trainer(run: Run, experiment: Experiment, merged: bool = False) -> None:
    """One Ray Train run to its end. Errors of this package come back as they were raised in the workers."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    reserved, storage, workers = worker_resources(experiment.workers, connect()), run.storage, experiment.workers

    def trainer() -> TorchTrainer:
        return TorchTrainer(
            _worker,
            torch_config=TorchConfig(timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())),
            train_loop_config={
                "folder": str(run.folder.resolve()),
                "cwd": os.getcwd(),
                "storage": storage,
                "scratch": f"{run.folder.name}-{uuid.uuid4().hex[:8]}",
                "experiment": experiment.as_dict(),
                "merged": merged,
            },
            scaling_config=ScalingConfig(
                num_workers=(workers.min, workers.count) if workers.min else workers.count,
                use_gpu="GPU" in reserved,
                resources_per_worker=reserved,
            ),
            run_config=RunConfig(
                # A new name each time: the loop resumes from the run's own checkpoints, so Ray must not from its own.
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=f"{storage.root}/ray" if storage else str(run.folder.resolve() / "ray"),
                storage_filesystem=storage.system if storage else None,
                failure_config=FailureConfig(max_failures=FAILURES, controller_failure_limit=FAILURES),
            ),
        )

    while True:
        before = _newest_step(run)
        try:
            error = trainer().fit().return_value
        except TrainingFailedError as failure:
            # Many faults in a long run are no reason to end it, but one that comes again before a checkpoint is.
            if _newest_step(run) == before:
                raise RunError(_in_words(failure)) from failure
            logger.warning("the workers failed more than %d times, but got on: they are begun again", FAILURES)
            continue
        if isinstance(error, ClassifierError):
            raise error
        return


def _in_words(failure: Exception) -> str:
    """What ended the workers for good, in a sentence: their last words, and the mend of a known one."""
    text = str(failure).strip()
    last = text.rpartition("\n")[2].strip()
    known = {
        "connectFullMesh": "each machine's name must lead to its address on the others, not to 127.0.0.1 (/etc/hosts)",
        "WorkerGroupStartupTimeoutError": "the cluster has no room for them: see ray status",
    }
    mend = next((mend for word, mend in known.items() if word in text), "run.log has what they said")
    return f"the workers failed {FAILURES + 1} times without getting on ({last[:300]}): {mend}"


def _newest_step(run: Run) -> int:
    if run.storage is not None:
        return retry_io(run.storage.newest_step, run.storage.root)
    manifest = CheckpointStore(run.checkpoints).latest_manifest()
    return manifest["step"] if manifest else -1


def _worker(config: dict[str, Any]) -> ClassifierError | None:
    """One worker's whole life. What the user must mend is returned, so that Ray does not try it again."""
    if sys.path[0].endswith("jobs"):  # Ray copies the driver's script folder; a verb there could shadow a library
        sys.path.pop(0)
    import ray.train
    import ray.train.torch

    from classifier import data
    from classifier.runs.recorder import record_training
    from classifier.training.resolve import resolve
    from jobs.launch.worker_log import tee_output

    # Ray tells each report, which run.log has already; this logger bears its file's name.
    teller = Path(ray.train.__file__).parent / "v2" / "_internal" / "execution" / "context.py"
    logging.getLogger(str(teller)).setLevel(logging.WARNING)
    enter_driver_folder(config["cwd"])
    run, group = Run(Path(config["folder"]), config["storage"]), ProcessGroup.current(ray.train.torch.get_device())
    if run.storage is not None:
        run.folder = Path(tempfile.gettempdir(), "classifier", config["scratch"])
        run.folder.mkdir(parents=True, exist_ok=True)
    if word := group.broadcast(_last_word(run) if group.is_first else None):
        return RunError(word)
    log = "run.log" if run.storage is None else run_storage.WORKER_LOG
    with tee_output(run.folder / log, f"worker {group.rank}"):
        # Where a person, or the fire drill, finds it.
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
                hooks = {"should_stop": stop.exists, "should_save": _Notice()}
                for epoch in record_training(run, experiment, dataset, group=group, **hooks):
                    ray.train.report(epoch.row())
        except RunError as error:
            if group.world_size == 1:
                return error
            # This worker's alone, and the others wait for it: all are begun again, and end by its word.
            _leave_word(run, error)
            raise
        except ClassifierError as error:
            return error
    return None


class _Notice:
    """Answers true once for each notice that a node will be taken away: its last minutes are for a checkpoint.

    Ray's public function asks all workers at each call; this looks at what Ray has told this one.
    """

    def __init__(self) -> None:
        from ray.train.v2._internal.execution.context import get_train_context

        self.context, self.seen = get_train_context().preemption_context, None

    def __call__(self) -> bool:
        info = self.context.preemption_info
        is_new, self.seen = info is not None and info != self.seen, info
        return is_new


def _leave_word(run: Run, error: RunError) -> None:
    (run.folder / LAST_WORD).write_text(str(error), encoding="utf-8")
    if run.storage is not None:
        with contextlib.suppress(OSError):  # then it is tried again, as often as any failure
            run.storage.upload(run.folder / LAST_WORD, LAST_WORD)


def _last_word(run: Run) -> str | None:
    """Why a worker before this one gave up for good."""
    if run.storage is not None:
        word = retry_io(lambda: run.storage and run.storage.read(LAST_WORD), run.storage.root)
        return word.decode() if word else None
    path = run.folder / LAST_WORD
    return path.read_text(encoding="utf-8") if path.exists() else None
