"""One trial in its process, without a cluster: out of memory, divergence, crashes, and shared images."""

import json

import numpy as np
import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.config.sections import DataConfig
from classifier.errors import DivergedError
from classifier.runs.folder import read_history
from jobs.launch.cluster import DriverContext
from jobs.launch.shared_dataset import SharedDataset
from jobs.search.trial import TrialActor

SMALL = {"model.name": "cnn", "data.batch": 64, "train.epochs": 3, "train.threads": 1, "train.precision": "fp32"}


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


@pytest.fixture
def actor(digits, tmp_path):
    """A TrialActor class to create with changes; trials are in tmp_path/trials."""
    base = Experiment().override_all(SMALL)

    class Local(TrialActor):
        def setup(self, config):  # pyright: ignore[reportIncompatibleMethodOverride]
            arguments = {"folder": str(tmp_path / "trials"), "storage": None, "driver": DriverContext.current()}
            super().setup(
                config,
                experiment=base.as_dict(),
                shared=SharedDataset.from_dataset(digits, base.data),
                costs={},
                **arguments,
            )

    return Local


def reports(trial: TrialActor) -> list[dict]:
    """All reports of a trial to its end."""
    found = [trial.step()]
    while not found[-1]["done"]:
        found.append(trial.step())
        assert len(found) < 10
    return found


def test_trial_reports_each_epoch_and_the_digest_of_its_experiment(actor):
    trial = actor({"optimizer.lr": 0.01})
    rows = reports(trial)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    experiment = Experiment().override_all(SMALL | {"optimizer.lr": 0.01})
    assert {row["digest"] for row in rows} == {experiment.digest()}
    assert rows[-1]["accuracy"] > 0.3
    assert read_experiment(trial.run.folder / "experiment.yaml").optimizer.lr == 0.01


def test_reused_process_trains_another_trial(actor):
    trial = actor({})
    first = reports(trial)
    assert trial.reset_config({"optimizer.lr": 0.01})
    second = reports(trial)
    assert first[0]["folder"] != second[0]["folder"]
    assert first[-1]["digest"] != second[-1]["digest"]


def test_crashed_trial_resumes_and_ends_like_an_uninterrupted_one(actor, tmp_path):
    unbroken = reports(actor({"seed": 1}))
    (tmp_path / "trials").rename(tmp_path / "away")
    trial = actor({"seed": 1})
    trial.step()
    trial.step()
    again = reports(actor({"seed": 1}))
    same = ("epoch", "accuracy", "loss")
    assert [[row[n] for n in same] for row in again] == [[row[n] for n in same] for row in unbroken]
    assert len(read_history(trial.run.folder)) == 3


def test_batch_is_halved_once_when_out_of_memory(actor, monkeypatch, capsys):
    from classifier.runs.recorder import record_training as real

    def record_training(run, experiment, dataset, group):
        if experiment.data.batch > 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(run, experiment, dataset, group=group)

    monkeypatch.setattr("jobs.search.trial.record_training", record_training)
    trial = actor({})
    rows = reports(trial)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    trained = read_experiment(trial.run.folder / "experiment.yaml")
    assert (trained.data.batch, trained.optimizer.accumulate) == (32, 2)
    assert json.loads((trial.run.folder / "halved.json").read_text()) == {"from": 64, "to": 32}
    assert "out of memory with data.batch 64: halving it" in (trial.run.folder / "run.log").read_text()
    asked = Experiment().override_all(SMALL)
    assert rows[0]["digest"] == asked.digest()  # it is still the trial that was requested


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), DivergedError("the loss is not finite")]
)
def test_trial_that_cannot_continue_ends_with_the_worst_scores(actor, monkeypatch, error):
    def record_training(*_, **__):
        raise error

    monkeypatch.setattr("jobs.search.trial.record_training", record_training)
    trial = actor({})
    (row,) = reports(trial)
    assert (row["accuracy"], row["loss"], row["error"]) == (0.0, float("inf"), str(error))
    assert (trial.run.folder / "error.txt").read_text() == f"{error}\n"


def test_other_errors_are_left_to_tune(actor, monkeypatch):
    def record_training(*_, **__):
        raise RuntimeError("a lost connection")

    monkeypatch.setattr("jobs.search.trial.record_training", record_training)
    with pytest.raises(RuntimeError, match="a lost connection"):
        actor({}).step()


def test_population_member_continues_from_another(actor, tmp_path):
    donor, other = actor({"seed": 1}), actor({"seed": 2})
    for _ in range(2):
        donor.step()
    other.step()  # behind the member that it copies
    (tmp_path / "checkpoint").mkdir()
    donor.save_checkpoint(str(tmp_path / "checkpoint"))
    other.load_checkpoint(str(tmp_path / "checkpoint"))
    assert other.step()["epoch"] == 3
    assert other.run.history()[:2] == donor.run.history()  # that of the model, without a gap


def test_shared_images_are_the_same(digits):
    shared = SharedDataset.from_dataset(digits, DataConfig())
    assert all(
        np.shares_memory(fields["images_NCHW"].array_NCHW, getattr(digits, split).images_NCHW.numpy())
        for split, fields in shared.images.items()
    )
    opened = shared.open()
    assert opened.train.images_NCHW[:].equal(digits.train.images_NCHW[:])
    assert (opened.fingerprint, opened.train.ids) == (digits.fingerprint, digits.train.ids)


def test_resumed_trial_marks_the_epochs_that_it_reports_again(actor, tmp_path):
    """All but the one where it stands: there, a scheduler may stop it."""
    trial = actor({"seed": 2})
    assert [trial.step()["replayed"] for _ in range(2)] == [False, False]
    trial._rows.close()
    again = reports(actor({"seed": 2}))
    assert [(row["epoch"], row["replayed"]) for row in again] == [(1, True), (2, False), (3, False)]
    (tmp_path / "trials" / trial.run.folder.name / "ended.json").write_text('{"epoch": 3, "whole": true}')
    ended = reports(actor({"seed": 2}))
    assert [row["replayed"] for row in ended] == [True, True, True]
    assert ended[-1]["whole"]
