"""The trainings of a compression: each is a run folder, which resumes, and ends with a calibrated bundle."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.config.recipes import photos
from classifier.config.sections import ModelConfig
from classifier.data.dataset import Dataset
from classifier.evaluation.calibrate import calibrate_saved_bundle
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training, result_fields, save_inputs
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.checkpoint import CheckpointStore
from classifier.training.distillation import Teacher
from classifier.training.ema import ModelEMA
from classifier.training.loop import Epoch, StepProgress
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

# Of a run that took no steps of its own, a linear probe.
PROBE_LR, PROBE_EPOCHS, PROBE_BATCH = 1e-3, 20, 32
# Share of the loss that is the teacher's, and the temperature.
DISTILL, TEMPERATURE = 0.9, 2.0


def plan_finetuning(about: Bundle, config: ModelConfig, *, test_flip: bool, epochs: int | None) -> Experiment:
    """Return the run's own recipe again, for weights that were pruned, or will be rounded.

    Its own learning rate, too: a lower one loses more (A. Renda et al., "Comparing rewinding and fine-tuning in neural
    network pruning", 2020).
    """
    base = _plan(about, config, test_flip)
    if not Experiment.from_dict(about.experiment).takes_steps:
        batch = min(PROBE_BATCH, base.data.batch * 2)
        own = {"optimizer.name": "adamw", "optimizer.lr": PROBE_LR, "train.epochs": PROBE_EPOCHS, "data.batch": batch}
        base = base.override_all(own | {"schedule.name": "cosine", "schedule.warmup": 0.1})
    changes = {"model.probe": False, "optimizer.backbone_scale": 1.0, "train.epochs": epochs or base.train.epochs}
    return base.override_all(changes)


def plan_student(about: Bundle, name: str, *, test_flip: bool, epochs: int | None) -> Experiment:
    """Return the run's own recipe for another model of the catalogue, from random weights."""
    config = dataclasses.replace(ModelConfig(), name=name)
    base = _plan(about, config, test_flip)
    if about.model["weights"] is not None:  # a recipe for pretrained weights
        scratch = photos()
        base = dataclasses.replace(base, optimizer=scratch.optimizer, schedule=scratch.schedule)
        base = base.override_all({"train.epochs": scratch.train.epochs, "data.batch": scratch.data.batch})
    return base.override("train.epochs", epochs or base.train.epochs)


def _plan(about: Bundle, config: ModelConfig, test_flip: bool) -> Experiment:
    experiment = dataclasses.replace(Experiment.from_dict(about.experiment), model=config)
    return experiment.override_all(
        {
            "model.freeze": "none",
            "model.freeze_epochs": None,
            "augment.views": 0,
            "augment.test_flip": test_flip,
            "loss.distill": DISTILL,
            "loss.distill_temperature": TEMPERATURE,
            "train.patience": None,
            "train.minutes": None,
            "train.compile": False,
            "train.track": (),
            "workers.count": 1,
        }
    )


def train_step(
    folder: Path,
    experiment: Experiment | None,
    dataset: Dataset,
    *,
    teacher: Teacher | None,
    unlabelled: Dataset | None = None,
    weights: Mapping[str, Tensor] | None = None,
    targets: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool],
    on_step: Callable[[StepProgress], None] | None = None,
    on_epoch: Callable[[Epoch, int], None],
) -> bool:
    """Train in a run folder, from its last checkpoint; return whether it is finished, and calibrated.

    experiment: None for a training that has begun. unlabelled: the data set with more training images. weights: to
    begin with; random ones if None. targets: of the calibration.
    """
    if _is_finished(folder):
        return True
    run = _open(folder, has_weights=weights is not None)
    try:
        if experiment is not None and not has_begun(folder):
            save_inputs(run, resolve(experiment, dataset), dataset)
        experiment = read_experiment(folder / "experiment.yaml")
        group = ProcessGroup.current(pick_device(experiment.train.device))
        trained_on = unlabelled or dataset
        if weights is not None and not has_begun(folder):
            _begin_with(run, experiment, trained_on, group, teacher, weights)
        hooks = {"teacher": teacher, "should_stop": should_stop, "on_step": on_step}
        for epoch in record_training(run, experiment, trained_on, group=group, **hooks):
            on_epoch(epoch, experiment.train.epochs)
            if epoch.stopped:
                return False
        calibrate_saved_bundle(folder, dataset, folder, device=experiment.train.device, **(targets or {}))
        run.write_result("train", "finished", **result_fields(folder))
        shutil.rmtree(run.checkpoints)
        return True
    finally:
        run.close()


def read_targets(about: Bundle) -> dict[str, Any]:
    """Return what a bundle's calibration was made for, as arguments of `calibrate`."""
    calibration = about.calibration
    if calibration is None:
        return {}
    kind, _, value = (calibration["wish"] or "").partition(" ")
    return {"coverage": calibration["coverage"]} | ({kind: float(value)} if value else {})


def _is_finished(folder: Path) -> bool:
    path = folder / "result.json"
    return path.is_file() and json.loads(path.read_bytes()).get("status") == "finished"


def has_begun(folder: Path) -> bool:
    """Whether a training has a checkpoint to go on from."""
    return CheckpointStore(folder / "checkpoints").newest_step() >= 0


def _open(folder: Path, *, has_weights: bool) -> RunFolder:
    is_resumable = has_begun(folder) if has_weights else True  # other weights may have other shapes
    if (folder / "experiment.yaml").is_file() and is_resumable:
        return RunFolder.resume(folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it trained
    return RunFolder.create(folder.parent, folder.name)


def _begin_with(
    run: RunFolder,
    experiment: Experiment,
    dataset: Dataset,
    group: ProcessGroup,
    teacher: Teacher | None,
    weights: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint of step 0 with these weights, from which the training goes on."""
    state = TrainState(experiment, dataset, group, teacher=teacher)
    state.model.load_state_dict(dict(weights))
    if state.ema is not None:
        state.ema = ModelEMA(state.model, state.ema.decay)
    checkpoint = state.checkpoint()
    assert checkpoint is not None
    CheckpointStore(run.checkpoints).commit(checkpoint)


def make_teacher(folders: Sequence[Path], class_names: Sequence[str], channels: int, device: str) -> Teacher:
    """Load bundles as a teacher. RunError if they have other classes or channels."""
    from classifier.errors import RunError

    members = []
    for folder in folders:
        loaded = bundles.load(folder, pick_device(device))
        if loaded.bundle.class_names != tuple(class_names) or loaded.bundle.channels != channels:
            raise RunError(f"{folder} cannot be a teacher: its classes or channels differ from those of the model")
        members.append((loaded.model, loaded.scorer()))
    return Teacher(members)
