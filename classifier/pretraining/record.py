"""Pretrain, and keep the run folder up to date: the weights, history.jsonl and checkpoints."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from classifier import models
from classifier.config.experiment import Experiment
from classifier.pretraining.images import PretrainingImages
from classifier.pretraining.loop import Epoch, pretrain
from classifier.pretraining.methods import Name
from classifier.runs.folder import RunFolder
from classifier.storage.atomic import retry_io, write_tensors
from classifier.training.checkpoint import CheckpointStore

WEIGHTS = "weights.safetensors"


def record_pretraining(
    run: RunFolder,
    experiment: Experiment,
    images: PretrainingImages,
    model: nn.Module,
    method: Name,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Iterator[Epoch]:
    """Run `pretrain` in a run folder, from its newest checkpoint. Errors of pretrain.

    The weights and the history row are written before the epoch's checkpoint: after a crash in between, the epoch is
    trained and written again, with the same result. All are on disk before the epoch is yielded.
    """
    store = CheckpointStore(run.checkpoints)
    run.truncate_history(store.latest_manifest())
    for epoch in pretrain(experiment, images, model, method, store=store, should_stop=should_stop, on_step=on_step):
        write_weights(epoch.model, run.folder / WEIGHTS, experiment.model.name, method)
        run.append_history(epoch.row())
        epoch.commit()
        yield epoch


def write_weights(model: nn.Module, path: Path, name: str, method: Name) -> None:
    """Write the backbone's weights as model.weights takes them: the head, which has learned nothing, is left out."""
    heads = models.head_parameter_names(model)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if key not in heads}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        write_tensors(state, part, model=name, method=method)
        part.replace(path)

    retry_io(write, path)
