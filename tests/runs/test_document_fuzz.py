"""Documents of bundles and runs with a fault at a random place are refused in a sentence, or still mean something.

A fault is a key that is missing, or a value of another type, NaN, huge, negative, nested or empty.
"""

import copy
import dataclasses
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from classifier import models
from classifier.bundle import bundle
from classifier.bundle.predictions import read_predicted_classes
from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.errors import ClassifierError
from classifier.evaluation.training_data import load_training_data
from classifier.report import run_page, search_page
from classifier.runs.folder import read_history, read_result
from classifier.runs.status import read_best_epoch, read_status
from jobs.search.trial_config import read_changes, read_trial_configs
from jobs.steps import runs_table
from jobs.steps.scores_table import describe_scores
from tests.report.run_files import write_run
from tests.report.test_search_page import write_search_page

CLASSES = ("cat", "dog", "fish")
FAULTS: tuple[Any, ...] = (None, True, -1, 0, 0.5, 7, 10**15, 10**30, 1e300, -1e-9, math.nan, math.inf)
FAULTS += ("", "1e3", "x" * 3000, "<script>", "\x1b[2J", "../..", "s3://b/x", [], {}, [[]], [None], {"a": {"b": []}})
FAULTS += ([1, "a"], "os:system", [[1, 2], [3]], {"": -1})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with every document, and a bundle that predicts."""
    folder = write_run(tmp_path_factory.mktemp("fuzz") / "runs" / "run", CLASSES, data_path="digits")
    about = bundle.read(folder)
    experiment = Experiment.from_dict(about.experiment)
    settings = experiment.as_dict()["model"]
    model = models.build(experiment.model, classes=3, channels=3, size=16)
    folder.joinpath("bundle", bundle.DOCUMENT).unlink()
    shutil.rmtree(folder / "bundle")
    bundle.save(dataclasses.replace(about, model=settings), model, folder / "bundle")
    names = pa.array(CLASSES)
    predictions = folder / "validation.parquet"
    table = pq.read_table(predictions)
    indices = table["label"].combine_chunks()
    table = table.append_column("image_id", pa.array([str(n) for n in range(len(table))]))
    table = table.append_column("label_name", names.take(indices)).append_column("predicted_name", names.take(indices))
    pq.write_table(table, predictions)
    shutil.copy(predictions, folder / "predictions.parquet")
    write_search_page(folder.parent / "search", 3)
    (folder / "split.json").write_text(json.dumps({"findings": [{"kind": "duplicates_across"}]}))
    trial = folder / "trials" / "a1"
    trial.mkdir(parents=True)
    sample = {"number": 1, "source": "drawn", "changes": {"optimizer.lr": 0.1, "model.name": "cnn"}, "drawn": None}
    (trial / "sample.json").write_text(json.dumps(sample))
    return folder


def check_verbs(folder: Path, altered: str = "") -> None:
    """What the verbs read of a run: each ends, or raises a ClassifierError of one line.

    altered: the document with the fault; without one, all that reads any.
    """

    def load() -> None:
        predictor = Predictor(folder, device="cpu")
        predictor([np.zeros((16, 16, 3), np.uint8)])

    def evaluate() -> None:
        about = bundle.read(folder)
        for scores in about.scores.values():
            if scores and "intervals" in scores:
                list(describe_scores(scores))
        load_training_data(folder, about)

    search, trials = folder.parent / "search", folder / "trials"
    of_search: list[Callable[[], object]] = [lambda: search_page.write(search), lambda: read_result(search)]
    of_trial: list[Callable[[], object]] = [lambda: read_trial_configs(trials), lambda: read_changes(trials / "a1")]
    of_run: list[Callable[[], object]] = [lambda: run_page.write(folder), lambda: read_status(folder)]
    of_run += [lambda: read_best_epoch(folder), lambda: read_predicted_classes(folder), lambda: read_history(folder)]
    of_run += [lambda: read_result(folder), lambda: read_experiment(folder / "experiment.yaml")]
    of_run += [lambda: runs_table.make_table(runs_table.find_runs(folder.parent, (), "validation"), 80)]
    of_run += [load, evaluate] if "bundle" in altered or not altered else []
    steps = of_search if "search" in altered else of_trial if "trials" in altered else of_run
    for step in steps if altered else [*of_search, *of_trial, *of_run]:
        message = ""
        try:
            step()
        except ClassifierError as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 2000


def find_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in nested data, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inside for key, one in inner for inside in find_paths(one, (*path, key)))]


def alter(document: Any, rng: random.Random) -> Any:
    """The document with a fault."""
    document = copy.deepcopy(document)
    path = rng.choice(find_paths(document))
    if not path:
        return rng.choice(FAULTS)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.25:
        del parent[path[-1]]
    else:
        parent[path[-1]] = rng.choice(FAULTS)
    return document


def alter_file(path: Path, rng: random.Random) -> None:
    """Write a fault into a document, or cut it, or flip bits in it."""
    content = path.read_bytes()
    if rng.random() < 0.1 or path.suffix == ".parquet":
        cut = rng.randrange(len(content))
        broken = bytearray(content[:cut] if rng.random() < 0.3 else content)
        for _ in range(rng.randrange(1, 4)):
            if broken:
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(alter(yaml.safe_load(content), rng)))
    elif path.suffix == ".jsonl":
        lines = content.decode().splitlines()
        line = rng.randrange(len(lines))
        lines[line] = json.dumps(alter(json.loads(lines[line]), rng))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(alter(json.loads(content), rng)))


def fuzz(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    names = ["bundle/bundle.json"] * 3 + ["result.json"] * 2 + ["history.jsonl", "experiment.yaml", "robustness.json"]
    names += ["split.json", "predictions.parquet", "validation.parquet", "validation-mistakes.parquet"]
    names += ["trials/a1/sample.json", "../search/result.json", "../search/trials.parquet"]
    name = rng.choice(names)
    path = run / name
    before = path.read_bytes()
    try:
        alter_file(path, rng)
        check_verbs(run, name)
    finally:
        path.write_bytes(before)


def test_whole_documents_are_read(run):
    check_verbs(run)
    assert Predictor(run, device="cpu").class_names == CLASSES
    assert run_page.write(run).is_file()
    assert search_page.write(run.parent / "search").is_file()


@pytest.mark.parametrize("seed", range(24))
def test_faulty_document_is_refused_or_read(run, seed):
    fuzz(run, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(50))
def test_many_faulty_documents(run, block):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        try:
            fuzz(run, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
