"""A refit that is resumed."""

from types import SimpleNamespace
from typing import Any

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from jobs.search.refit import open_refit_run


def test_refit_resumes_if_it_was_started_for_the_same_winner(tmp_path):
    session: Any = SimpleNamespace(run=RunFolder(tmp_path))
    run, epochs = open_refit_run(session, "first", on_workers=False)
    assert epochs is None
    run.write_experiment(Experiment().override("train.epochs", 7))
    assert open_refit_run(session, "first", on_workers=False)[1] == 7
    run, epochs = open_refit_run(session, "second", on_workers=False)
    assert epochs is None
    assert not (run.folder / "experiment.yaml").exists()
