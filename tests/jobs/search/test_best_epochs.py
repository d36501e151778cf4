"""Which epoch of a trial counts."""

from typing import Any

import pytest

from classifier.config.experiment import Experiment
from jobs.search.best_epochs import BestEpochs, worst_score


def best_of(*reports: dict[str, Any], **changes: Any) -> int | None:
    """The epoch that counts of a trial with these reports, numbered from 1."""
    best = BestEpochs(Experiment().override_all(changes))
    for epoch, report in enumerate(reports, start=1):
        best.update("a", report | {"epoch": epoch})
    assert best.get("b") is None
    report = best.get("a")
    return report["epoch"] if report else None


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([], None),
        ([(0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.7, 1.2), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.5, 0.9)], 2),  # the loss decides
        ([(0.5, 1.0), (0.5, 1.0)], 1),
    ],
)
def test_first_objective_decides_then_the_loss(scores, best):
    assert best_of(*({"accuracy": accuracy, "loss": loss} for accuracy, loss in scores)) == best


def test_last_epoch_counts_where_its_model_is_kept():
    reports = [{"accuracy": 0.7, "loss": 1.0}, {"accuracy": 0.5, "loss": 1.0}]
    assert best_of(*reports, **{"train.keep": "last"}) == 2


def test_report_of_a_failure_does_not_count():
    failure = {"accuracy": worst_score("accuracy"), "loss": worst_score("loss"), "error": "out of memory"}
    assert best_of(failure) is None
    assert best_of({"accuracy": 0.0, "loss": 3.0}, failure, **{"train.keep": "last"}) == 1
