"""The order of grades: by their numbers, or as it is given; what has none is refused."""

from pathlib import Path
from typing import Any

import pytest

from classifier.config.sections import DataConfig
from classifier.data import load
from classifier.data.labels.grades import order_grades
from classifier.errors import ConfigError
from tests.conftest import draw_photos


@pytest.mark.parametrize(
    ("names", "order", "grades"),
    [
        (("10", "2", "1"), None, ("1", "2", "10")),
        (("-1", "0.5", "0"), None, ("-1", "0", "0.5")),
        (("mild", "none", "severe"), "none, mild,severe", ("none", "mild", "severe")),
        (("1", "2", "3"), "3,2,1", ("3", "2", "1")),
        (("mild", "none"), "none,mild,severe", ("none", "mild")),
    ],
)
def test_order(names: tuple[str, ...], order: str | None, grades: tuple[str, ...]):
    assert order_grades("eyes", names, order) == grades


@pytest.mark.parametrize(
    ("names", "order", "words"),
    [
        (("mild", "none"), None, r"eyes: no order of its classes is known: .* --data.order mild,none$"),
        ([f"grade {n}" for n in range(9)], None, r"--data.order 'grade 0,.*,grade 5,\.\.\.'$"),
        (("mild", "none", "severe"), "none,severe", "lacks the classes 'mild' of eyes: name them all"),
        (("mild", "none"), "none,mild,none", "names a class twice"),
    ],
)
def test_no_order(names: tuple[str, ...], order: str | None, words: str):
    with pytest.raises(ConfigError, match=words):
        order_grades("eyes", names, order)


def test_labels_follow_the_order_and_numbers_are_no_digits(tmp_path: Path):
    folder = draw_photos(tmp_path / "eyes", {"mild": 12, "none": 10, "severe": 8}, size=8)

    def read(**settings: Any):
        return load(DataConfig(path=str(folder), cache=None, **settings))

    dataset = read(task="ordinal", order="none,mild,severe")
    assert (dataset.task, dataset.class_names) == ("ordinal", ("none", "mild", "severe"))
    assert all(
        id_.startswith(dataset.class_names[k]) for id_, k in zip(dataset.train.ids, dataset.train.labels_N, strict=True)
    )
    assert read().class_names == ("mild", "none", "severe")
    with pytest.raises(ConfigError, match=r"add --data\.task ordinal"):
        read(order="none,mild,severe")
    numbers = draw_photos(tmp_path / "numbers", {"0": 12, "1": 10}, size=8)
    kinds = [load(DataConfig(path=str(numbers), cache=None, task=task)).kind for task in ("ordinal", "multiclass")]
    assert kinds == ["photos", "symbols"]
