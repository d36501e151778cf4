"""After the last epoch of a training with columns: which model remains."""

import dataclasses
from typing import TYPE_CHECKING, Any

from classifier.models.fusion.fusion_net import FusionNet
from classifier.training import head_probe
from classifier.training.fusion.conclude import Fused, conclude, extract_shared, fit_finally

if TYPE_CHECKING:
    from classifier.training.state import TrainState


def choose_final_model(
    state: "TrainState", scores: dict[str, Any] | None, number: int, improves: bool
) -> tuple[dict[str, Any] | None, bool, bool]:
    """Set state.fused, where columns join the images. Return the scores of the model that remains, whether it improves
    on all epochs, and whether it is to be saved in any case.

    scores, number, improves: of the last epoch. The weights that are trained stay as they are, so that a longer
    training can go on from them.
    """
    model, is_by_folds = state.eval_model, state.fused is not None  # a probe's
    if not isinstance(model, FusionNet):
        return scores, improves, False
    if state.fused is None:
        train = head_probe.select_images(state.dataset)
        features_NB = extract_shared(model, state.scorer, train, state.group)
        parts = (model, state.experiment, state.dataset, state.scorer, state.group, features_NB, train)
        state.fused = conclude(model, fit_finally(*parts))
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
