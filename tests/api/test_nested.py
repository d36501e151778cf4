"""Nested classes, from folders to answers: the outer ones have colours of their own, those inside look alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import classifier
from classifier.answers.answering import answer_images
from classifier.answers.listing import ImageListing
from classifier.answers.rows import Columns, write_answers
from jobs.steps.prediction_rows import json_row
from jobs.steps.scores_table import describe_scores

COLOURS = {"animal/cat": 0, "animal/dog": 0, "plant/fern": 1, "plant/moss": 1, "stone": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "things"
    for name, channel in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for n in range(40):
            pixels_HWC = rng.integers(0, 90, (24, 24, 3), dtype=np.uint8)
            pixels_HWC[:, :, channel] += 120
            Image.fromarray(pixels_HWC).save(folder / name / f"{n:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory) -> classifier.Run:
    settings = {"data.task": "nested", "model.name": "cnn", "train.epochs": 3, "data.batch": 16, "data.validation": 0.3}
    return classifier.train(folder, out=tmp_path_factory.mktemp("runs"), progress=False, **settings)


def test_scores_of_each_level(run: classifier.Run) -> None:
    test = run.test()
    [level] = test.scores["levels"]
    assert (level["depth"], level["classes"]) == (1, 3)
    assert test.accuracy < 0.8 < 0.95 < level["accuracy"]
    assert level["intervals"]["accuracy"][1] == 1
    result = json.loads((run.folder / "result.json").read_text())
    assert result["test"]["levels"] == [level]
    lines = [line for line in describe_scores(test.scores) if isinstance(line, str)]
    assert lines[-1].startswith("  level 1, 3 classes: accuracy 100.00% (")
    assert "Level 1, of 3 classes: accuracy 100.0%" in (run.folder / "report.html").read_text()


def test_the_answer_is_a_class_above_where_no_leaf_is_sure(run: classifier.Run, folder: Path, tmp_path: Path) -> None:
    model = classifier.load(run)
    assert model.answer_names == (*COLOURS, "animal", "plant")
    cats = sorted((folder / "animal" / "cat").iterdir())
    said = [one for one in model.predict(cats) if not one.is_out_of_distribution]
    above = [one for one in said if one.decision == "animal"]
    assert len(above) > 5
    for one in above:
        assert one.levels == (("animal", pytest.approx(1, abs=0.1)),)
        assert one.describe() == "animal"
        assert one.class_name in ("animal/cat", "animal/dog")
        assert len(one.prediction_set) > 1
        assert json_row(one)["levels"][0]["class_name"] == "animal"
    [stone] = model.predict([folder / "stone" / "00.png"])
    assert stone.decision == stone.class_name == stone.levels[0][0] == "stone"
    answers = answer_images(model, [*ImageListing([str(folder / "animal" / "cat")])], Columns(2))
    write_answers(answers, tmp_path / "answers.jsonl", "jsonl")
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["taken"] for row in rows] == [one.decision for one in model.predict(cats)]
    assert {row["verdict"] for row in rows if row["taken"] == "animal"} <= {"sure", "unlike anything seen"}
