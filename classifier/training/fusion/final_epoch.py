"""After the last epoch of a training with columns: which model remains."""

import dataclasses
from typing import Any, Protocol

from torch import nn

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.training.fusion.conclude import Fused


class State(Protocol):
    """What of a TrainState decides that."""

    experiment: Experiment
    dataset: Dataset
    fused: Fused | None

    @property
    def eval_model(self) -> nn.Module: ...

    def compare_fusion(self) -> Fused | None: ...

    def validate(self) -> dict[str, Any]: ...

    def update_best(self, scores: dict[str, Any], number: int, *, is_again: bool = False) -> bool: ...


def choose_final_model(
    state: State, scores: dict[str, Any] | None, number: int, improves: bool
) -> tuple[dict[str, Any] | None, bool, bool]:
    """Set state.fused, where columns join the images. Return the scores of the model that remains, whether it improves
    on all epochs, and whether it is to be saved in any case.

    scores, number, improves: of the last epoch. The weights that are trained stay as they are, so that a longer
    training can go on from them.
    """
    model, is_by_folds = state.eval_model, state.fused is not None  # a probe's
    if state.fused is None:
        state.fused = state.compare_fusion()
    if state.fused is None:
        return scores, improves, False
    compared = state.fused.compared
    is_wanted = state.experiment.model.fusion != "auto"
    if state.fused.is_trained:
        return scores, improves, False
    if is_by_folds or not len(state.dataset.validation):
        return scores, improves, is_by_folds or is_wanted
    fused_scores = state.validate()
    is_better = state.update_best(fused_scores, number, is_again=True)
    if is_better or is_wanted or state.experiment.train.keep == "last":
        return fused_scores, is_better or improves, is_wanted
    kept = dataclasses.replace(compared, name="mlp", tensors={}, scores=compared.scores | {"chosen": "mlp"})
    state.fused = Fused(model, kept)
    return scores, improves, False
