"""The parts of an update: which images are kept, how they are written, the grown head, the loss, the verdict."""

import dataclasses
import functools
import types
from typing import Any

import numpy as np
import pytest
import torch

from classifier import data, models
from classifier.config.sections import DataConfig, ModelConfig
from classifier.data.dataset import Split
from classifier.errors import ConfigError
from classifier.models.head import head_parameter_names
from classifier.training.distillation import ReplayLoss, TaughtTargets, Teacher
from classifier.update.compose import compose
from classifier.update.document import Candidate
from classifier.update.grow_head import grow_head
from classifier.update.judge import choose_max_loss, compare_old_and_new, find_allowing_loss, judge
from classifier.update.memory import choose_size, select_balanced
from classifier.update.tables import is_new
from tests.conftest import draw_photos


def test_a_memory_is_balanced_and_a_smaller_one_is_part_of_it():
    labels_N = torch.tensor([0] * 50 + [1] * 3 + [2] * 50)
    ids = [f"{n}.png" for n in range(len(labels_N))]
    large, small = select_balanced(labels_N, ids, 23), select_balanced(labels_N, ids, 6)
    assert torch.bincount(labels_N[large]).tolist() == [10, 3, 10]
    assert torch.bincount(labels_N[small]).tolist() == [2, 2, 2]
    assert set(small.tolist()) < set(large.tolist())
    assert large.tolist() == sorted(large.tolist())
    assert len(select_balanced(labels_N, ids, 1000)) == len(labels_N)
    names = [str(k) for k in range(100)]
    assert (choose_size(None, names[:3], names[:1]), choose_size(None, names[:50], names)) == (500, 2000)
    assert (choose_size(7, names[:3], names[:1]), choose_size(0, names[:3], names[:1])) == (7, 0)


def list_pixels(split: Split, class_names: tuple[str, ...]) -> list[tuple[bytes, str]]:
    images = split.images_NCHW[: len(split)]
    return [(image.numpy().tobytes(), class_names[k]) for image, k in zip(images, split.labels_N.tolist(), strict=True)]


def test_the_composed_data_set_has_the_same_pixels(tmp_path):
    old = data.load(DataConfig(path=str(draw_photos(tmp_path / "old", {"b": 12, "a": 12})), cache=None))
    more = draw_photos(tmp_path / "more", {"z": 9, "a": 9}, seed=1)
    new = data.load(DataConfig(path=str(more), cache=None, size=old.size))
    composed = compose(old, new, 6, tmp_path / "run")
    assert composed.new_classes == ["z"]
    both = data.load(DataConfig(path=str(tmp_path / "run" / "data"), cache=None))
    assert both.class_names == ("a", "b", "z")
    assert both.size == old.size
    for split in ("train", "validation", "test"):
        found, kept, added = getattr(both, split), getattr(old, split), getattr(new, split)
        is_new_N = is_new(found.ids)
        assert (~is_new_N).sum() == (6 if split == "train" else len(kept)) == composed.counts["old"][split]
        assert is_new_N.sum() == len(added) == composed.counts["new"][split]
        pixels = {*list_pixels(kept, old.class_names), *list_pixels(added, new.class_names)}
        assert {*list_pixels(found, both.class_names)} <= pixels


@pytest.mark.parametrize("name", ["resnet9_16", "plain7_32"])
def test_a_grown_head_answers_as_before(name):
    torch.manual_seed(0)
    old, new = (models.build(ModelConfig(name=name), classes=n, channels=3, size=24).eval() for n in (2, 4))
    new.load_state_dict(grow_head(old.state_dict(), ("b", "d"), new, ("a", "b", "c", "d")))
    images_NCHW = torch.rand(5, 3, 24, 24)
    with torch.no_grad():
        before_NK, after_NK = old(images_NCHW), new(images_NCHW)
    assert torch.allclose(after_NK[:, [1, 3]], before_NK, atol=1e-6)
    assert torch.equal(after_NK[:, [0, 2]], torch.zeros(5, 2))
    assert head_parameter_names(new) <= new.state_dict().keys()


def test_only_images_of_known_classes_are_replayed():
    plain: Any = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
    logits_NK, labels_N = torch.randn(3, 4), torch.tensor([1, 0, 3])
    teacher_MJ, known_M = torch.randn(2, 2).log_softmax(1), torch.tensor([0, 2])
    targets = TaughtTargets(labels_N, teacher_MJ, known_M)
    found_N = ReplayLoss(plain, 0.5, 2.0, torch.tensor([1, 3]))(logits_NK, targets)
    student_MJ = (logits_NK[[0, 2]][:, [1, 3]] / 2).log_softmax(1)
    expected_N = plain(logits_NK, labels_N)
    expected_N[known_M] += 4 * (teacher_MJ.exp() * (teacher_MJ - student_MJ)).sum(1)
    assert torch.allclose(found_N, expected_N, atol=1e-6)


def test_a_teacher_of_fewer_classes_sees_only_images_that_it_knows():
    seen = []

    def network(images_NCHW):
        seen.append(len(images_NCHW))
        return torch.zeros(len(images_NCHW), 2)

    model: Any = network
    model.eval = lambda: model
    scorer: Any = types.SimpleNamespace(size=8, forward=lambda run, images_NCHW: run(images_NCHW))
    teacher = Teacher([(model, scorer)], classes=(1, 3))
    taught = teacher.teach(torch.rand(4, 3, 8, 8), torch.tensor([3, 0, 1, 2]), 2.0)
    assert seen == [2]
    assert taught.known_M is not None
    assert taught.known_M.tolist() == [0, 2]


def make_candidate(old_before: int, old_after: int, new_before: int, new_after: int) -> Candidate:
    """A candidate that is right on the first so many of 400 old and 400 new images, as the model before is."""
    count = 400
    dataset = data.load(DataConfig(path="digits", cache=None))
    ids = [f"{origin}/test.parquet/{n}" for origin in ("old", "new") for n in range(count)]
    split = dataclasses.replace(dataset.test.take(torch.zeros(2 * count, dtype=torch.int64)), ids=ids)
    first_N = np.arange(count)
    before_N, after_N = (
        np.concatenate([first_N < old, first_N < new])
        for old, new in ((old_before, new_before), (old_after, new_after))
    )
    old, new, classes = compare_old_and_new(before_N, after_N, split, dataset.class_names)
    return {"name": "replay", "seconds": 1.0, "old": old, "new": new, "validation": None, "classes": classes}


@pytest.mark.parametrize(
    ("hits", "limit", "promoted"),
    [((390, 389, 0, 300), 2.0, True), ((390, 370, 0, 300), 2.0, False), ((390, 390, 300, 301), 2.0, False)],
    ids=["better on the new", "forgets", "no gain shown"],
)
def test_what_is_promoted(hits, limit, promoted):
    candidate = make_candidate(*hits)
    outcome = judge(candidate, limit)
    assert outcome["promoted"] == promoted
    assert candidate["classes"][0]["images"] == 400
    document = {"candidates": [candidate], "outcome": outcome}
    larger = find_allowing_loss(document)  # pyright: ignore[reportArgumentType]
    assert (larger is None) == (hits[3] == 301)
    if larger is not None:
        assert judge(candidate, larger)["promoted"]
        assert not judge(candidate, larger - 1)["promoted"]


def test_few_test_images_cannot_show_a_small_loss():
    assert choose_max_loss(None, 20) > 5
    assert choose_max_loss(None, 5000) == 1.0
    assert choose_max_loss(0.2, 5000) == 0.2
    with pytest.raises(ConfigError, match="cannot be shown on 20 old test images"):
        choose_max_loss(1.0, 20)
