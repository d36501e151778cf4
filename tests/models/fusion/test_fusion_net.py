"""Late fusion: any image model joined by columns, what is missing, and candidates that answer in place of the head."""

import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier

from classifier import models
from classifier.config.experiment import Experiment
from classifier.errors import ModelError
from classifier.models.fusion.candidates import TREES
from classifier.models.fusion.fusion_net import FusionNet
from classifier.models.fusion.tree_ensemble import from_forest

WIDTHS = (1, 3)
CLASSES = 4


def build(name: str = "cnn", **options) -> FusionNet:
    torch.manual_seed(0)
    config = Experiment().override("model.name", name).model
    shape = {"classes": CLASSES, "channels": 1, "size": 16, "column_widths": WIDTHS}
    model = models.build(config, **(shape | options))
    assert isinstance(model, FusionNet)
    return model


def draw_columns(count: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.cat([torch.ones(count, 1), torch.randn(count, sum(WIDTHS))], 1)


def shake(model: FusionNet) -> FusionNet:
    """Random weights in the head, which starts at zero."""
    torch.nn.init.normal_(model.fusion.head.weight, std=0.1)
    return model.eval()


def make_tensors(model: FusionNet, kind: str) -> dict[str, torch.Tensor]:
    """Return a candidate of a forest on random rows."""
    width = sum(WIDTHS) + (2 if kind == "trees" else 0)
    rows_NF, labels_N = torch.randn(60, width), torch.arange(60) % CLASSES
    forest = ExtraTreesClassifier(5, random_state=0).fit(rows_NF.numpy(), labels_N.numpy())
    own = {"weight": torch.tensor(0.3)} if kind == "average" else {"projection": torch.randn(2, model.fusion.features)}
    trees = {f"{TREES}{name}": tensor for name, tensor in from_forest(forest, CLASSES).items()}
    return trees | own | {"offset": torch.zeros(CLASSES)}


@pytest.mark.parametrize("name", ["cnn", "plain7_32", "resnet9_16", "vit_tiny", "resnet18", "mobilenet_v3_small"])
def test_any_model_with_a_linear_head_is_joined_by_columns(name):
    model, images_NCHW = shake(build(name)), torch.rand(6, 1, 16, 16)
    columns_NF = draw_columns()
    without_NK, with_NK = model(images_NCHW), model(images_NCHW, columns_NF)
    assert without_NK.shape == with_NK.shape == (6, CLASSES)
    assert not torch.allclose(without_NK, with_NK)
    empty_NF = columns_NF.clone()
    empty_NF[:, 1:] = float("nan")
    assert torch.equal(model(images_NCHW, empty_NF), without_NK)
    assert list(models.head_modules(model)) == ["fusion.head"]


def test_missing_image_is_not_looked_at():
    model, columns_NF = shake(build()), draw_columns()
    columns_NF[:, 0] = 0
    first_NK, second_NK = (model(torch.rand(6, 1, 16, 16), columns_NF) for _ in range(2))
    assert torch.equal(first_NK, second_NK)
    assert not torch.equal(first_NK[0], first_NK[1])


def test_head_starts_as_the_image_models():
    torch.manual_seed(0)
    config = Experiment().override("model.name", "resnet18").model
    alone = models.build(config, classes=CLASSES, channels=1, size=16).eval()
    fused = build("resnet18").eval()
    images_NCHW = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(fused(images_NCHW, draw_columns(3)), alone(images_NCHW))


def test_frozen_backbone_leaves_all_that_comes_after_it_to_train():
    model = build()
    models.set_frozen(model, True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == models.head_parameter_names(model)
    assert {name.partition(".")[0] for name in trained} == {"fusion"}


def test_modality_dropout_leaves_something_of_every_sample():
    fusion = build().fusion.train()
    fusion.modality_dropout = 0.4
    columns_NF = draw_columns(2000)
    columns_NF[:500, 0] = 0  # without an image
    columns_NF[500:1000, 1:] = float("nan")
    torch.manual_seed(0)
    has_image_N1, values_NF = fusion._drop(columns_NF[:, :1] > 0, columns_NF[:, 1:])
    is_there_N = ~values_NF.isnan().all(1) | has_image_N1[:, 0]
    assert is_there_N.all()
    assert has_image_N1[500:1000].all()
    assert 0.2 < float(values_NF[1000:].isnan().all(1).float().mean()) < 0.6
    assert 0.2 < 1 - float(has_image_N1[1000:].float().mean()) < 0.6
    assert torch.equal(values_NF[:, 1].isnan(), values_NF[:, 3].isnan())  # a column is missing as a whole


@pytest.mark.parametrize("kind", ["trees", "average"])
def test_candidate_is_saved_with_the_weights(kind):
    model, other = shake(build()), shake(build())
    model.fusion.candidate = model.fusion.make_candidate(make_tensors(model, kind))
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    images_NCHW, columns_NF = torch.rand(6, 1, 16, 16), draw_columns()
    columns_NF[0, 0], columns_NF[1, 1:], columns_NF[2, 1] = 0, float("nan"), float("nan")
    answers_NK = model(images_NCHW, columns_NF)
    assert torch.equal(other(images_NCHW, columns_NF), answers_NK)
    assert answers_NK.isfinite().all()
    other.load_state_dict(build().state_dict())
    assert other.fusion.candidate is None


@pytest.mark.parametrize("kind", ["trees", "average"])
def test_candidate_is_explained_by_the_heads_gradients(kind):
    model = shake(build())
    images_NCHW, columns_NF = torch.rand(6, 1, 16, 16).requires_grad_(), draw_columns()
    (of_head_NCHW,) = torch.autograd.grad(model(images_NCHW, columns_NF)[:, 0].sum(), images_NCHW)
    model.fusion.candidate = model.fusion.make_candidate(make_tensors(model, kind))
    (of_candidate_NCHW,) = torch.autograd.grad(model(images_NCHW, columns_NF)[:, 0].sum(), images_NCHW)
    torch.testing.assert_close(of_candidate_NCHW, of_head_NCHW)
    assert of_head_NCHW.abs().max() > 0


def test_average_without_columns_is_the_heads_answer():
    model, images_NCHW = shake(build()), torch.rand(6, 1, 16, 16)
    expected_NK = model(images_NCHW).softmax(1)
    model.fusion.candidate = model.fusion.make_candidate(make_tensors(model, "average"))
    torch.testing.assert_close(model(images_NCHW).softmax(1), expected_NK)


def test_damaged_candidate_is_an_error_of_the_state():
    model = build()
    state = model.state_dict() | {f"fusion.candidate.{n}": t for n, t in make_tensors(model, "trees").items()}
    state["fusion.candidate.projection"] = torch.zeros(1, 3)
    with pytest.raises(RuntimeError, match="candidate"):
        model.load_state_dict(state)


def test_model_without_a_linear_head_is_refused():
    with pytest.raises(ModelError, match=r"squeezenet1_0: columns join the features of an image before a head"):
        build("squeezenet1_0", size=64)


def test_ordered_grades_keep_their_head():
    model = shake(build(task="ordinal"))
    logits_NK = model(torch.rand(6, 1, 16, 16), draw_columns())
    torch.testing.assert_close(logits_NK.exp().sum(1), torch.ones(6))
