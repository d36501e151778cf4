"""Models of image and columns on features: fitted the same each time, and the best on held-out images kept."""

import dataclasses

import pytest
import torch
from torch import nn

from classifier.models.fusion.fusion_net import Fusion
from classifier.models.ordinal_head import OrdinalHead
from classifier.training.fusion.compare import CANDIDATES, compare_by_folds, compare_on_validation, find_components
from classifier.training.fusion.fit_mlp import fit_mlp
from classifier.training.fusion.inputs import FusionInputs

FEATURES, WIDTHS = 12, (1, 2)


def draw(count: int = 150, *, seed: int = 0, classes: int = 3, task: str = "multiclass") -> FusionInputs:
    """Features of which one tells the class a bit, as does a column; both together tell more."""
    rng = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(0, classes, (count,), generator=rng)
    features_NB = torch.randn(count, FEATURES, generator=rng)
    features_NB[:, 0] += labels_N
    values_NF = torch.randn(count, sum(WIDTHS), generator=rng)
    values_NF[:, 0] += labels_N
    values_NF[::7, 0] = float("nan")
    values_NF[::5, 1:] = float("nan")
    has_image_N1 = torch.ones(count, 1)
    has_image_N1[::9] = 0
    targets = nn.functional.one_hot(labels_N, classes).float() if task == "multilabel" else labels_N
    return FusionInputs(
        features_NB=features_NB,
        columns_NF=torch.cat([has_image_N1, values_NF], 1),
        targets=targets,
        strata_N=labels_N,
        classes=classes,
        task=task,  # pyright: ignore[reportArgumentType]
        seed=0,
    )


def make_fusion(inputs: FusionInputs) -> Fusion:
    torch.manual_seed(0)
    head = OrdinalHead(FEATURES, inputs.classes) if inputs.task == "ordinal" else nn.Linear(FEATURES, inputs.classes)
    options = {"classes": inputs.classes, "is_multilabel": inputs.is_multilabel}
    return Fusion(head, WIDTHS, modality_dropout=0.1, **options)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "ordinal"])
def test_joined_models_beat_image_and_columns_alone(task):
    inputs = draw(task=task)
    compared, state = compare_by_folds(make_fusion(inputs), inputs)
    assert compared.scores["images"] == len(inputs)
    assert compared.name == compared.scores["chosen"]
    assert compared.held_out is not None
    losses = {name: compared.scores[name]["loss"] for name in ("image", "columns", *CANDIDATES)}
    assert losses[compared.name] < min(losses["image"], losses["columns"])
    assert compared.held_out.loss == losses[compared.name]
    fusion = make_fusion(inputs)
    fusion.load_state_dict(state)
    fusion.candidate = fusion.make_candidate(compared.tensors)
    with torch.no_grad():
        assert fusion.eval()(inputs.features_NB, inputs.columns_NF).isfinite().all()


def test_comparison_is_deterministic():
    inputs = draw(80)
    torch.manual_seed(1)
    fusion = make_fusion(inputs)
    (first, first_state), (second, second_state) = (compare_by_folds(fusion, inputs, "trees") for _ in range(2))
    assert first.scores == second.scores
    for one, other in ((first_state, second_state), (first.tensors, second.tensors)):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("wanted", CANDIDATES)
def test_wanted_candidate_is_chosen(wanted):
    inputs, judged = draw(80), draw(40, seed=1)
    by_folds, _ = compare_by_folds(make_fusion(inputs), inputs, wanted)
    by_validation = compare_on_validation(make_fusion(inputs), inputs, judged, wanted)
    unseen = compare_on_validation(make_fusion(inputs), inputs, None, wanted)
    for compared in (by_folds, by_validation, unseen):
        assert compared.name == wanted
        assert bool(compared.tensors) == (wanted != "mlp")


def test_trained_fusion_is_replaced_only_by_what_is_clearly_better():
    inputs, judged = draw(200), draw(100, seed=1)
    untrained = make_fusion(inputs)
    assert compare_on_validation(untrained, inputs, judged).name != "mlp"
    trained = make_fusion(inputs)
    trained.load_state_dict(fit_mlp(trained, inputs).state)
    assert compare_on_validation(trained, inputs, judged).name == "mlp"


def test_single_images_of_each_class_leave_the_fusions_head():
    inputs = draw(3).take(torch.arange(3))
    inputs = dataclasses.replace(inputs, targets=torch.arange(3), strata_N=torch.arange(3))
    compared, state = compare_by_folds(make_fusion(inputs), inputs)
    assert (compared.name, compared.held_out, compared.tensors) == ("mlp", None, {})
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_fitted_head_takes_features_as_they_are():
    inputs = draw()
    scaled = dataclasses.replace(inputs, features_NB=5 * inputs.features_NB + 3)
    answers = []
    for given in (inputs, scaled):
        fusion = make_fusion(given)
        fusion.load_state_dict(fit_mlp(fusion, given).state)
        with torch.no_grad():
            answers.append(fusion.eval()(given.features_NB, given.columns_NF).softmax(1))
    torch.testing.assert_close(*answers, atol=0.02, rtol=0)


def test_adjustment_shifts_the_answers_by_the_shares():
    inputs = draw(200)
    inputs = inputs.take(torch.cat([torch.nonzero(inputs.targets == 0)[:, 0], torch.nonzero(inputs.targets)[:30, 0]]))
    adjusted = dataclasses.replace(inputs, adjustment=1.0)
    for wanted in ("mlp", "trees"):
        rates = []
        for given in (inputs, adjusted):
            compared, _ = compare_by_folds(make_fusion(given), given, wanted)
            assert compared.held_out is not None
            rates.append(int((compared.held_out.logits_MK.argmax(1) == 0).sum()))
        assert rates[1] < rates[0]


@pytest.mark.parametrize("count", [8, 60])
def test_components_are_those_of_a_singular_value_decomposition(count):
    features_NB = torch.randn(count, 20) * torch.arange(1, 21)
    projection_PB = find_components(features_NB)
    reference = torch.linalg.svd(features_NB - features_NB.mean(0), full_matrices=False).Vh[: len(projection_PB)]
    cosines = (projection_PB * reference).sum(1).abs()[: min(7, count - 1)]
    torch.testing.assert_close(cosines, torch.ones_like(cosines), atol=1e-3, rtol=0)


def test_candidates_are_not_judged_by_copies_of_what_they_were_fitted_to():
    once = draw(60)
    twice = once.take(torch.arange(60).repeat_interleave(2))
    units = dataclasses.replace(twice, units_N=torch.arange(60).repeat_interleave(2))
    fusion = make_fusion(once)
    (copies, _), (apart, _) = compare_by_folds(fusion, twice), compare_by_folds(fusion, units)
    assert all((fold.index_M.view(-1, 2) // 2).diff(dim=1).eq(0).all() for fold in apart.folds)
    for name in ("columns", "trees"):
        assert copies.scores[name]["accuracy"] > apart.scores[name]["accuracy"] + 0.1
