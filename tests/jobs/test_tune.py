"""`jobs/tune.py` on a Ray cluster; the first search starts its own."""

import time

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.runs.folder import read_history
from tests.conftest import Done

FAST = ("--model.name", "cnn", "--data.batch", "128")
QUIET_SECONDS = 2.0  # of a one-epoch training on two quiet cores


@pytest.fixture(scope="module")
def search(verb_in, tmp_path_factory):
    """One search, shared by several tests."""
    words = ("--train.epochs", "3", "--search.grace", "1", "--search.trials", "5", "--name", "s")
    vary = ("--search.vary", "optimizer.lr=1e-3,1e-2,3e-3", "model.name=cnn,resnet9_16", "optimizer.clip=1,1e30")
    return verb_in(tmp_path_factory.mktemp("search"), "tune", *FAST, *words, *vary)


def test_search_ends_with_a_table_a_winner_and_its_test(search):
    assert search.code == 0, search.err
    result = search.result
    assert (result["kind"], result["status"]) == ("tune", "finished")
    assert sum(result["trials"].values()) == 5
    assert result["test"]["accuracy"] > 0.5
    assert result["test_reads"] == 1
    trials = pq.read_table(search.folder / "trials.parquet").to_pylist()
    assert len(trials) == 5
    best = max(trials, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert trials[0] == best
    assert result["winner"] == best["trial"]
    assert result["validation"]["accuracy"] == best["validation_accuracy"]
    assert result["validation"]["loss"] == pytest.approx(best["validation_loss"])
    assert best["trial"] in search.out
    assert "Score over time" in (search.folder / "search.html").read_text()
    assert {row["status"] for row in trials} <= {"finished", "stopped"}


def test_every_trial_trained_what_was_sampled_for_it(search):
    for row in pq.read_table(search.folder / "trials.parquet").to_pylist():
        trained = read_experiment(search.folder / "trials" / row["trial"] / "experiment.yaml")
        for name in ("optimizer.lr", "model.name", "optimizer.clip"):
            assert trained.get(name) == row[name]


def test_the_recipe_is_the_first_trial(search):
    trials = pq.read_table(search.folder / "trials.parquet").to_pylist()
    first = next(row for row in trials if row["source"] == "recipe")
    assert (first["optimizer.lr"], first["model.name"]) == (Experiment().optimizer.lr, "cnn")


def test_best_yaml_is_a_complete_experiment(search):
    winner = pq.read_table(search.folder / "trials.parquet").to_pylist()[0]
    best = yaml.safe_load((search.folder / "best.yaml").read_text())
    assert best["optimizer"]["lr"] == winner["optimizer.lr"]
    assert best["data"]["size"] == 8


def test_search_folder_can_be_used_as_a_run(search, verb):
    done = verb("evaluate", search.folder)
    assert done.code == 0, done.err
    assert done.result["test"] == search.result["test"]
    assert "--again" in done.out
    again = verb("train", "--experiment", search.folder / "best.yaml", "--train.epochs", "1")
    assert again.code == 0, again.err


@pytest.mark.usefixtures("joined")
def test_several_objectives_end_with_a_pareto_front(verb):
    words = (*FAST, "--train.epochs", "2", "--search.trials", "4", "--search.grace", "1", "--search.algorithm", "gp")
    done = verb(
        "tune", *words, "--search.objective", "accuracy,latency,size", "--search.vary", "model.name=cnn,resnet9_16"
    )
    assert done.code == 0, done.err
    result = done.result
    assert result["objective"] == ["accuracy", "latency", "size"]
    trials = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert {row["trial"] for row in trials if row["on_front"]} == set(result["front"])
    assert len(trials) == 2  # the space has only two architectures
    assert all(row["latency"] > 0 and row["size"] > 1000 for row in trials)
    assert "Pareto front" in (done.folder / "search.html").read_text()


@pytest.mark.usefixtures("joined")
def test_population_based_training_copies_its_best_weights(verb, tmp_path):
    words = (*FAST, "--train.epochs", "3", "--search.trials", "4", "--search.grace", "1", "--search.scheduler", "pbt")
    done = verb("tune", *words, "--search.vary", "optimizer.lr=1e-6..1e-2:log", "--name", "s")
    assert done.code == 0, done.err
    trials = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert len(trials) == 4
    assert all(row["epochs"] == 3 for row in trials)
    for row in trials:
        history = read_history(done.folder / "trials" / row["trial"])
        assert [line["epoch"] for line in history] == [1, 2, 3]
    # A trial that started with a hopeless learning rate got another's weights.
    assert min(row["validation_accuracy"] for row in trials) > 0.3


@pytest.fixture
def slowdown(verb) -> float:
    """How many times as long as on a quiet machine a short training takes now, 1 or more."""
    seconds = []
    for _ in range(2):  # the first starts the fork server, too
        began = time.monotonic()
        assert verb("train", *FAST, "--train.epochs", "1").code == 0
        seconds.append(time.monotonic() - began)
    return max(1.0, seconds[-1] / QUIET_SECONDS)


def search_within(verb, minutes: float, *words: str) -> tuple[Done, float]:
    """A search within these minutes; twice as many, again and again, if no trial finished an epoch in them."""
    while True:
        options = ("--train.epochs", "100000", "--search.trials", "500", "--search.minutes", round(minutes, 2))
        done = verb("tune", *FAST, *options, *words)
        if "give the search more minutes" not in done.err or minutes > 4:
            return done, minutes
        minutes *= 2


@pytest.mark.alone
@pytest.mark.usefixtures("joined")
def test_search_keeps_to_its_minutes(verb, slowdown):
    done, minutes = search_within(verb, 0.4 * slowdown)
    assert done.code == 0, done.err
    assert "epochs would take" in done.out
    assert done.result["seconds"] < 60 * minutes + 3 * max(slowdown, minutes / 0.4)
    assert done.result["status"] == "finished"


@pytest.mark.alone
@pytest.mark.usefixtures("joined")
def test_refit_is_longer_than_trials_and_keeps_to_the_minutes(verb, slowdown):
    done, minutes = search_within(verb, 0.5 * slowdown, "--search.final", "true")
    assert done.code == 0, done.err
    assert "the refit has 100000 epochs" in done.out
    assert done.result["seconds"] < 60 * minutes + 3 * max(slowdown, minutes / 0.5)
    epochs = read_experiment(done.folder / "best.yaml").train.epochs  # as it was trained
    assert done.result["epochs"] == read_history(done.folder / "final")[-1]["epoch"] == epochs
    assert epochs >= 0.75 * pq.read_table(done.folder / "trials.parquet").to_pylist()[0]["epochs"]


@pytest.mark.usefixtures("joined")
def test_search_starts_from_an_earlier_one(search, verb):
    words = (*FAST, "--train.epochs", "3", "--search.grace", "1", "--search.trials", "2")
    vary = ("--search.vary", "optimizer.lr=1e-3,1e-2,3e-3", "model.name=cnn,resnet9_16", "optimizer.clip=1,1e30")
    done = verb("tune", *words, *vary, "--search.start_from", search.folder)
    assert done.code == 0, done.err
    trials = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert {row["source"] for row in trials} == {"recipe", "start_from"}
    earlier = pq.read_table(search.folder / "trials.parquet").to_pylist()
    best = next(row for row in earlier if row["source"] != "recipe")
    second = next(row for row in trials if row["source"] == "start_from")
    names = ("optimizer.lr", "model.name", "optimizer.clip")
    assert [second[name] for name in names] == [best[name] for name in names]


@pytest.mark.usefixtures("joined")
def test_search_with_a_probe_auto_batch_shared_features_and_refit(verb, tmp_path):
    """A search of a frozen backbone with weights at a relative path, with everything that a plan may do."""
    model = models.build(Experiment().override("model.name", "cnn").model, classes=10, channels=1, size=8)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    words = ("--search.probe", "cnn=w.safetensors", "--data.batch_auto", "true", "--model.freeze", "backbone")
    words += ("--augment.views", "2", "--train.epochs", "2", "--search.trials", "2", "--search.final", "true")
    words += ("--search.vary", "optimizer.lr=1e-3..1e-2:log")  # rather than a linear probe as a trial
    done = verb("tune", "--recipe", "digits", *words, "--search.keep", "1", "--name", "s")
    assert done.code == 0, done.err
    result = done.result
    assert result["trials"]["finished"] + result["trials"]["stopped"] == 2
    assert len(list(done.folder.glob("trials/*/bundle"))) == 1
    # The probe chose the backbone, and the plan the batch size.
    assert "the search uses cnn" in done.out
    best = read_experiment(done.folder / "best.yaml")
    assert (best.model.name, best.model.weights) == ("cnn", "w.safetensors")
    assert (
        f"data.batch {read_experiment(done.folder / 'asked.yaml').data.batch} was measured as the fastest" in done.out
    )
    assert not best.data.batch_auto
    # The winner was refitted on training and validation images together.
    assert result["validation"] is None
    assert result["selection"]["count"] == 162
    assert [row["validation_accuracy"] for row in read_history(done.folder / "final")] == [None] * 2
    assert result["test"]["count"] == 331
    # Trials computed the features of the training images, and the refit those of the validation images.
    files = {path.stem.partition("-")[2]: path for path in (done.folder / "features").iterdir()}
    assert set(files) == {"", "validation", "view0", "view1"}  # the probe's, and theirs
    counts = result["dataset"]["counts"]
    for name in ("view0", "view1"):
        assert len(load_file(files[name])["features"]) == counts["train"] + counts["validation"]
    megabytes = sum(path.stat().st_size for path in files.values()) / 1e6
    assert f"{done.folder.relative_to(tmp_path) / 'features'}, {megabytes:.1f} MB, speeds up" in done.out
    assert verb("predict", "runs/s", done.folder / "confusion.png").code == 0
