"""A bundle of images and columns predicts from both, from either alone, and refuses rows that it cannot understand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.bundle import bundle
from classifier.bundle.predictor import Prediction, Predictor, Unreadable
from classifier.data.columns.schema import IMAGE
from classifier.errors import ConfigError, DataError, RunError
from tests.tables import NAMES, draw_rows, make_bundle, make_dataset

ANSWERS = ("head", "trees", "average")


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("columns") / "bundle", dataset)


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return Predictor(folder, engine="torch", device="cpu")


@pytest.fixture(scope="module")
def images(dataset) -> list[np.ndarray]:
    return [image.permute(1, 2, 0).numpy() for image in dataset.validation.images_NCHW]


@pytest.mark.parametrize("answers", ANSWERS)
def test_a_saved_bundle_predicts_as_its_scorer_does(dataset, images, answers, tmp_path):
    loaded = bundle.load(make_bundle(tmp_path / "bundle", dataset, answers))
    assert loaded.bundle.columns == dataset.columns
    split = dataset.validation
    expected_NK = loaded.scorer().predict_probabilities(loaded.model, split.images_NCHW, split.columns_NF)
    predictor = Predictor(tmp_path / "bundle", engine="torch", device="cpu")
    found = predictor.predict(images, columns=draw_rows(seed=1))
    np.testing.assert_allclose([one.probabilities for one in found], expected_NK, atol=1e-6)
    np.testing.assert_allclose(predictor(images, draw_rows(seed=1)), expected_NK, atol=1e-6)


def test_columns_and_images_may_be_missing(predictor, images):
    row = draw_rows()[0]
    whole, without_columns, without_image, empty, blank = predictor.predict(
        [images[0], images[0], None, images[0], images[0]], columns=[row, None, row, {}, dict.fromkeys(NAMES, "")]
    )
    assert not np.allclose(whole.probabilities, without_columns.probabilities)
    assert not np.allclose(whole.probabilities, without_image.probabilities)
    np.testing.assert_allclose(without_columns.probabilities, empty.probabilities, atol=1e-6)
    np.testing.assert_allclose(without_columns.probabilities, blank.probabilities, atol=1e-6)
    [alone] = predictor.predict([images[0]])
    np.testing.assert_allclose(alone.probabilities, without_columns.probabilities, atol=1e-6)


def test_a_missing_image_is_not_strange(predictor):
    columns_NF = predictor.bundle.columns.encode([draw_rows()[0], draw_rows()[0]], [True, False])
    judgement = predictor.judge(np.full((2, 3, 24, 24), 255, np.uint8), columns_NF)
    assert judgement.is_ood_N.tolist() == [True, False]
    assert np.isnan(judgement.ood_scores_N).tolist() == [False, True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"weigth": 3},
            "the model has no column weigth, only weight, colour, or none, seen, notes; did you mean weight?",
        ),
        ({"weight": "heavy"}, "weight is 'heavy', which is no number"),
        ({"weight": [3]}, r"weight is \[3\]: give text or a number"),
        ({"seen": "yesterday"}, "seen is 'yesterday', which is no date"),
    ],
)
def test_a_row_that_is_not_understood_is_named_and_stops_no_other(predictor, images, row, reason):
    with pytest.raises(DataError, match=f"^{reason}"):
        predictor.predict([images[0]], columns=[row])
    named = [("first", images[0], {"weight": 1}), ("second", images[1], row), ("third", images[2], None)]
    first, second, third = predictor.predict_named(named)
    assert (type(first), type(second), type(third)) == (Prediction, Unreadable, Prediction)
    assert second.reason.startswith("second: ")
    [expected] = predictor.predict([images[2]])
    np.testing.assert_allclose(third.probabilities, expected.probabilities, atol=1e-6)


def test_neither_image_nor_columns_is_no_question(predictor, images):
    with pytest.raises(DataError, match="there is neither an image nor a value of a column"):
        predictor.predict([None], columns=[{"weight": None}])
    with pytest.raises(DataError, match="there are 1 rows of columns for 2 images"):
        predictor.predict(images[:2], columns=[{}])


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "occlusion"])
def test_heatmaps_belong_to_image_and_columns(predictor, images, method):
    rows = draw_rows()
    first, missing, other = predictor.predict(
        [images[0], None, images[0]], columns=[rows[0], rows[1], rows[2]], maps=method
    )
    assert first.heatmap.startswith(b"\xff\xd8")
    assert other.heatmap.startswith(b"\xff\xd8")
    assert missing.heatmap is None


def test_a_model_of_images_alone_takes_no_columns(dataset, tmp_path):
    from tests.export.conftest import make_bundle as make_plain

    predictor = Predictor(make_plain(tmp_path / "bundle", "cnn", dataclasses.replace(dataset, columns=None)))
    image = np.zeros((24, 24, 3), np.uint8)
    with pytest.raises(DataError, match="the model takes images alone, and no columns"):
        predictor.predict([image], columns=[{"weight": 3}])
    with pytest.raises(DataError, match="there is no image, and the model takes nothing else"):
        predictor.predict([None])
    document = json.loads((tmp_path / "bundle/bundle.json").read_text())
    del document["columns"]  # as earlier versions wrote it
    (tmp_path / "bundle/bundle.json").write_text(json.dumps(document))
    assert bundle.read(tmp_path / "bundle").columns is None
    bundle.read(tmp_path / "bundle").refuse_columns("compress")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda columns: columns.clear(), "columns has 0 columns"),
        (lambda columns: columns.append(columns[0]), "two columns of one name"),
        (lambda columns: columns[0].update(width=5), "has a width of 5"),
        (lambda columns: columns[0].update(std=0), r"columns\[0\].std"),
        (lambda columns: columns[0].update(mean="3"), r"columns\[0\].mean"),
        (lambda columns: columns[0].pop("kind"), r"columns\[0\].kind is missing"),
    ],
)
def test_a_damaged_schema_is_refused(dataset, tmp_path, change, reason):
    folder = make_bundle(tmp_path / "bundle", dataset)
    document = json.loads((folder / "bundle.json").read_text())
    change(document["columns"])
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=rf"bundle.json is corrupted \(.*{reason}"):
        bundle.read(folder)


def test_columns_of_another_width_do_not_fit_the_weights(dataset, tmp_path):
    folder = make_bundle(tmp_path / "bundle", dataset)
    document = json.loads((folder / "bundle.json").read_text())
    document["columns"].pop()
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="its weights do not fit"):
        bundle.load(folder)


def test_verbs_that_know_images_alone_refuse(folder):
    with pytest.raises(ConfigError, match=r"compress knows images alone, and this model also columns \(weight, colour"):
        bundle.read(folder).refuse_columns("compress")


def test_where_there_is_no_image_its_pixels_do_not_matter(dataset, folder):
    loaded = bundle.load(folder)
    columns_NF = dataset.validation.columns_NF[:4].clone()
    columns_NF[:, IMAGE] = 0
    images_NCHW = dataset.validation.images_NCHW[:4]
    answers = [
        loaded.scorer().predict_probabilities(loaded.model, one, columns_NF)
        for one in (images_NCHW, torch.zeros_like(images_NCHW))
    ]
    torch.testing.assert_close(*answers)
