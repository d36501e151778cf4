"""What a learning curve means: counts in, sentences out."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.metrics.power_law import fit_power_law, resample_power_law
from jobs.studies.learning_curve import interpret, plan_runs

SIZES = [100, 200, 400, 800, 1600]


def say(validation: list[float], train: float, validation_images: int) -> str:
    """The sentences of a curve with these validation accuracies, and this accuracy on the largest training set."""
    points = [
        {"images": size, "train": train, "validation": accuracy}
        for size, accuracy in zip(SIZES[-len(validation) :], validation, strict=True)
    ]
    sizes, errors = [point["images"] for point in points], [1 - accuracy for accuracy in validation]
    law = fit_power_law(sizes, errors, validation_images=validation_images)
    samples = resample_power_law(law, sizes, errors, validation_images=validation_images)
    return " ".join(interpret(points, law, samples, 1600, validation_images))


STEEP, FLAT = [0.6, 0.7, 0.775, 0.83, 0.87], [0.8, 0.8, 0.8, 0.8, 0.8]


@pytest.mark.parametrize(
    ("validation", "train", "validation_images", "said"),
    [
        (STEEP, 0.9, 5000, "Twice as many images (3,200) would give an accuracy of about 89.9% (88."),
        (STEEP[2:], 0.9, 22, "Twice as many images (3,200): cannot tell whether they would help."),
        (FLAT, 0.82, 200, "Twice as many images (3,200): cannot tell whether they would help."),
        ([1.0] * 5, 1.0, 22, "Twice as many images (3,200): cannot tell whether they would help."),
        (FLAT, 0.81, 50_000, "More images of the same kind gain almost nothing"),
        (STEEP, 0.99, 5000, "It overfits: accuracy is 12 points (11 to 13) higher on training images."),
        (STEEP, 0.93, 22, "Cannot tell whether it overfits: accuracy is -2 to +"),
        (FLAT, 0.81, 5000, "It does not overfit"),
    ],
)
def test_conclusion(validation, train, validation_images, said):
    assert said in say(validation, train, validation_images)


@pytest.mark.parametrize(
    ("validation", "train", "validation_images", "unsaid"),
    [
        (FLAT, 0.82, 200, "almost nothing"),  # nor is that known of 200 images
        (FLAT, 0.81, 30, "does not overfit"),
        (STEEP, 0.93, 22, "It overfits"),
        (STEEP, 0.99, 5000, "annot tell"),
    ],
)
def test_conclusion_that_the_counts_cannot_bear_is_not_drawn(validation, train, validation_images, unsaid):
    assert unsaid not in say(validation, train, validation_images)


def test_gain_has_an_interval_that_narrows_with_more_validation_images():
    def width(validation_images: int) -> float:
        found = re.search(r"\(([\d.]+)% to ([\d.]+)%; now", say(STEEP, 0.9, validation_images))
        assert found
        low, high = map(float, found.groups())
        assert low < 89.9 < high
        return high - low

    assert width(1000) > 2 * width(20_000)


def test_a_probe_is_fitted_once_at_each_size_and_needs_no_batch():
    dataset: Any = SimpleNamespace(name="few", class_names=("a", "b"), train=range(100), validation=range(10))
    settings: dict[str, Any] = {"model.weights": "imagenet", "data.batch": 64, "train.epochs": 1}
    runs = {}
    for is_probe in (True, False):
        experiment = Experiment().override_all(settings | {"model.probe": is_probe})
        sizes = 4 if is_probe else 1
        runs[is_probe] = plan_runs(dataset, experiment, sizes=sizes, largest=1.0, repeats=1)
    assert [run.changes["data.limit"] for run in runs[True]] == [12, 25, 50, 100]
    assert {run.changes["train.epochs"] for run in runs[True]} == {1}
    assert len(runs[False]) == 1
    with pytest.raises(ConfigError, match="needs 64"):
        plan_runs(dataset, Experiment().override_all(settings), sizes=2, largest=1.0, repeats=1)
