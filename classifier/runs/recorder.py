"""Train, and keep the run folder up to date: the best bundle, history.jsonl, TensorBoard events, trackers."""

import contextlib
import dataclasses
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier import models
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, DivergedError, RunError
from classifier.runs.data_location import write_location
from classifier.runs.folder import RunFolder, read_history
from classifier.runs.tensorboard import TensorBoardWriter
from classifier.runs.trackers import Trackers
from classifier.runtime.distributed import ProcessGroup
from classifier.storage.atomic import write_atomically
from classifier.text import show
from classifier.training.checkpoint import CheckpointStore
from classifier.training.distillation import Teacher
from classifier.training.loop import Epoch, StepProgress, fit

logger = logging.getLogger(__name__)

# Scores in result.json, beside those of all tasks, of nested classes and of ordered grades.
_TASK_SCORES = ("levels", "quadratic_kappa", "mean_absolute_error")


def record_training(
    run: RunFolder,
    experiment: Experiment,
    dataset: Dataset,
    *,
    group: ProcessGroup | None = None,
    teacher: Teacher | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepProgress], None] | None = None,
) -> Iterator[Epoch]:
    """Run `fit` in a run folder, from its newest checkpoint. Rank 0 writes; the other ranks only train.

    The bundle and the history row are written before the epoch's checkpoint: after a crash in between, the epoch is
    trained and written again, with the same result. All are on disk before the epoch is yielded. RunError if the
    dataset is not the one that the run started with.
    """
    group = group or ProcessGroup()
    store = CheckpointStore(run.checkpoints)
    if group.is_first:
        _rewind_to_checkpoint(run, store, dataset)
    tensorboard = TensorBoardWriter(run.folder / "tensorboard")
    trackers = Trackers(experiment, run.folder) if group.is_first else None
    hooks = {"teacher": teacher, "should_stop": should_stop, "should_save": should_save, "on_step": on_step}
    try:
        for epoch in fit(experiment, dataset, group=group, store=store, features=run.feature_folder, **hooks):
            if group.is_first:
                if epoch.is_best:
                    save_bundle(run, experiment, dataset, epoch)
                elif epoch.fusion is not None:  # an earlier epoch's model stays
                    bundle.update_fusion(run.bundle, epoch.fusion)
                run.append_history(epoch.row())
                tensorboard.write(epoch.row())
            if trackers:
                trackers.write(epoch.row())
            epoch.commit()
            yield epoch
    finally:
        if trackers:
            trackers.end()


def save_inputs(run: RunFolder, experiment: Experiment, dataset: Dataset) -> None:
    """Write what is trained and on what: the resolved experiment, split.json, splits.safetensors and data.json."""
    run.write_experiment(experiment)
    write_location(run.folder, experiment.data, dataset.fingerprint)
    write_atomically(run.folder / "split.json", json.dumps(dataset.split_record, indent=1) + "\n")
    if dataset.assigned is not None:
        dataset.assigned.write(run.folder)


def save_bundle(run: RunFolder, experiment: Experiment, dataset: Dataset, epoch: Epoch) -> None:
    """Save the epoch's model as the run's bundle."""
    scores = {"validation": epoch.validation, "test": None}
    about = bundle.Bundle.from_training(experiment, dataset, scores=scores, epoch=epoch.number)
    bundle.save(dataclasses.replace(about, fusion=epoch.fusion), epoch.model, run.bundle)


def record_failure(run: RunFolder, kind: str, error: BaseException, experiment: Experiment) -> None:
    """Record why a training ended early, in run.log and result.json: failed, or stopped by the user's interrupt.

    A folder in which nothing was trained because of a user's mistake is removed.
    """
    is_user_error = isinstance(error, ClassifierError) and not isinstance(error, DivergedError)
    if is_user_error and not run.has_started:
        run.discard()
        return
    text = f"{show(error)}\n" if isinstance(error, ClassifierError) else "".join(traceback.format_exception(error))
    fields: dict[str, Any] = {"config": experiment.as_dict()}
    with contextlib.suppress(OSError):  # a full disk, which may be the error itself
        with (run.folder / "run.log").open("a", encoding="utf-8") as log:
            log.write("interrupted\n" if isinstance(error, KeyboardInterrupt) else show(text, keep="\n"))
        if isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(RunError):  # no model yet
                fields = result_fields(run.folder)
            run.write_failure(kind, "stopped", **fields)
        else:
            run.write_failure(kind, "failed", error=describe_error(error), **fields)


def describe_error(error: BaseException) -> str:
    """Say in words, on one line, why a run failed."""
    if isinstance(error, ClassifierError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        return "its output could not be written: the reader of the pipe has ended"
    if isinstance(error, SystemExit):
        return f"the process was told to exit, with code {error.code}"
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())


def result_fields(folder: Path, loaded: bundle.LoadedBundle | None = None) -> dict[str, Any]:
    """Return the fields of result.json that describe the model in a run, search or bundle folder.

    loaded: the folder's bundle, if it is in memory already. RunError if there is no bundle yet.
    """
    about, model = loaded or bundle.load(folder)
    history = read_history(folder)
    speeds = [row["images_per_second"] for row in history if row["images_per_second"] is not None]
    return {
        "config": about.experiment,
        "dataset": about.dataset,
        **{split: summary_scores(scores) if scores else None for split, scores in about.scores.items()},
        "images_per_second": speeds[-1] if speeds else None,
        "input_wait": history[-1].get("input_wait") if history else None,
        "epochs": history[-1]["epoch"] if history else about.provenance["epoch"],
        "parameters": models.count_parameters(model),
        "device": about.experiment["train"]["device"],
        **({"fusion": about.fusion} if about.fusion else {}),
    }


def summary_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a split that result.json contains."""
    if "subset_accuracy" in scores:  # of several labels
        names = ("map", "micro_f1", "macro_f1", "loss", "count")
        return {"accuracy": scores["subset_accuracy"]} | {name: scores[name] for name in names}
    names = ("accuracy", "macro_f1", "loss", "count", *(name for name in _TASK_SCORES if name in scores))
    return {name: scores[name] for name in names}


def _rewind_to_checkpoint(run: RunFolder, store: CheckpointStore, dataset: Dataset) -> None:
    manifest = store.latest_manifest()
    if manifest is None and run.history():
        logger.warning("%s has no complete checkpoint: it is trained from the beginning", run.folder)
    run.truncate_history(manifest)
    if manifest and manifest["about"]["dataset"] != dataset.fingerprint:
        raise RunError(
            f"{run.folder} was trained on other images or labels than {dataset.name} has now: "
            "restore the data, or start a new run"
        )
