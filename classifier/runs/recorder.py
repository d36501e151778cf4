"""A training whose run folder is kept up to date as it happens: the best bundle, the journal, TensorBoard's events."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier import models
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import RunError
from classifier.runs.folder import Run, read_history
from classifier.runs.tensorboard import TensorBoardWriter
from classifier.runs.trackers import Trackers
from classifier.runtime.distributed import ProcessGroup
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import Epoch, StepProgress, fit


def record_training(
    run: Run,
    experiment: Experiment,
    dataset: Dataset,
    *,
    group: ProcessGroup | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepProgress], None] | None = None,
) -> Iterator[Epoch]:
    """`fit` in a run folder, from its newest checkpoint on. Rank 0 writes; the others only train.

    The bundle and the journal's line are on disk before the checkpoint that counts them in: after a death in between,
    the epoch is trained and written again, with the same result. All of them are there before the epoch is yielded.
    RunError if the data are not those it began with.
    """
    group = group or ProcessGroup()
    store = CheckpointStore(run.checkpoints)
    if group.is_first:
        _rewind(run, store, dataset)
    events = TensorBoardWriter(run.folder / "tensorboard")
    trackers = Trackers(experiment, run.folder) if group.is_first else None
    hooks = {"should_stop": should_stop, "should_save": should_save, "on_step": on_step}
    try:
        for epoch in fit(experiment, dataset, group=group, store=store, features=run.feature_folder, **hooks):
            if group.is_first:
                if epoch.is_best:
                    save_bundle(run, experiment, dataset, epoch)
                run.append_history(epoch.row())
                events.write(epoch.row())
            if trackers:
                trackers.write(epoch.row())
            epoch.commit()
            yield epoch
    finally:
        if trackers:
            trackers.end()


def save_bundle(run: Run, experiment: Experiment, dataset: Dataset, epoch: Epoch) -> None:
    """Make the epoch's model the run's bundle."""
    scores = {"validation": epoch.validation, "test": None}
    bundle.save(bundle.Bundle.from_training(experiment, dataset, scores=scores, epoch=epoch.number), epoch.model, run.bundle)


def result_fields(folder: Path, loaded: bundle.LoadedBundle | None = None) -> dict[str, Any]:
    """Return the fields of result.json about the model in a run, search or bundle folder.

    loaded: that folder's bundle, if the caller has it in memory already. RunError if there is no bundle yet.
    """
    made, model = loaded or bundle.load(folder)
    history = read_history(folder)
    speeds = [row["images_per_second"] for row in history if row["images_per_second"] is not None]
    return {
        "config": made.experiment,
        "dataset": made.dataset,
        **{split: summary_scores(scores) if scores else None for split, scores in made.scores.items()},
        "images_per_second": speeds[-1] if speeds else None,
        "input_wait": history[-1].get("input_wait") if history else None,
        "epochs": history[-1]["epoch"] if history else made.provenance["epoch"],
        "parameters": models.count_parameters(model),
        "device": made.experiment["train"]["device"],
    }


def summary_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores that result.json holds of a split."""
    return {name: scores[name] for name in ("accuracy", "macro_f1", "loss", "count")}


def _rewind(run: Run, store: CheckpointStore, dataset: Dataset) -> None:
    manifest = store.latest_manifest()
    run.truncate_history(manifest)
    if manifest and manifest["about"]["dataset"] != dataset.fingerprint:
        raise RunError(
            f"{run.folder} was trained on other images or labels than {dataset.name} holds now: "
            "bring the data back as they were, or begin a new run"
        )
