"""A bundle or run chooses neither what is read nor its limits; the folder of a run names local paths."""

import json
import shutil
from types import SimpleNamespace

import pytest

from classifier.bundle import bundle
from classifier.config.sections import DataConfig
from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import ConfigError, DataError, RunError
from classifier.evaluation import training_data
from classifier.evaluation.training_data import load_training_data, without_choices
from tests.report.run_files import write_run


@pytest.mark.parametrize(
    ("recorded", "is_run", "expected"),
    [
        ({"cache": "/etc", "cache_gb": 9e9, "download": True, "outside": True}, True, {}),
        ({"cache": None}, True, {"cache": None}),
        ({"max_pixels": 10**15, "max_bytes": 10**15, "max_seconds": 1e9}, True, {}),
        ({"max_pixels": 10, "max_bytes": 10, "max_seconds": 1.0}, False, "as recorded"),
        ({"root": "/sets", "only": "clean.csv"}, True, "as recorded"),
        ({"root": "/sets", "only": "clean.csv"}, False, {}),
        ({"root": "s3://b/sets", "only": "\\\\server\\clean.csv"}, True, {}),
        ({"size": 32, "fit": "pad", "group": "x(.)", "split_seed": 3, "validation": 0.2}, False, "as recorded"),
    ],
)
def test_settings_of_a_document_that_only_the_user_may_choose(recorded, is_run, expected):
    config = DataConfig(**recorded)
    wanted = config if expected == "as recorded" else DataConfig(**expected)
    assert without_choices(config, is_run=is_run) == wanted


@pytest.mark.parametrize(
    ("data_path", "where", "says"),
    [
        ("photos", "run/bundle", None),
        ("photos", "alone", "name the data set that it was trained on by --data"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:1", "run", "no file chooses what is read from another machine"),
        ("s3://AKIA:secret@bucket/x", "run", "^the place .* trained on contains credentials: [^:]*$"),
        ("\\\\server\\photos", "run", "no file chooses what is read from another machine"),
    ],
)
def test_place_of_the_data(data_path, where, says, tmp_path):
    run = write_run(tmp_path / "run", ["a", "b"], data_path=data_path)
    shutil.copytree(run / "bundle", tmp_path / "alone")
    about = bundle.read(run)
    with pytest.raises((ConfigError, DataError, RunError), match=says or "photos") as error:
        load_training_data(tmp_path / where, about)
    assert (says is None) == isinstance(error.value, DataError), "a local path of a run is followed"


def test_other_data_are_refused_with_the_settings_that_were_not_followed(tmp_path):
    run = write_run(tmp_path / "run", ["a", "b"], data_path="digits")
    document = json.loads((run / "bundle" / "bundle.json").read_text())
    document["experiment"]["data"] |= {"max_pixels": 10**9, "outside": True}
    (run / "bundle" / "bundle.json").write_text(json.dumps(document))
    about = bundle.read(run)
    with pytest.raises(RunError, match=r"--data\.outside true --data\.max_pixels 1000000000, which only you can allow"):
        load_training_data(run, about)
    with pytest.raises(RunError) as error:
        load_training_data(run, about, None, {"data.max_pixels": 10**9, "data.outside": True})
    assert "only you can allow" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("weight",), "units lacks the column cost, unlike the data that the model was trained on"),
        ((), "units lacks the columns cost, weight, unlike"),
        (("weight", "cost", "colour"), "units has also the column colour, unlike"),
        (("weight", "cost"), "other images, labels or splits"),
    ],
)
def test_other_columns_are_named(columns, says, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", ["a", "b"], columns=["weight", "cost"])
    schema = ColumnSchema(tuple(Column(name=name, kind="number", width=1) for name in columns)) if columns else None
    found = SimpleNamespace(name="units", columns=schema, fingerprint="other")
    monkeypatch.setattr(training_data.data, "load", lambda config: found)
    with pytest.raises(RunError, match=says):
        load_training_data(run, bundle.read(run), "units.csv")
