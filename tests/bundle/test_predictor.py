"""A Predictor predicts as the model was evaluated, and names images that it cannot read."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from classifier import data, models
from classifier.bundle import bundle, image_reader
from classifier.bundle.predictions import PredictionsWriter, predictions_table, predictor_table, save_predictions
from classifier.bundle.predictor import Prediction, Predictor, Unreadable
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError, RunError
from classifier.inference.scorer import Scorer

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 noisy images in three colours, of mixed sizes and formats."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (root / name).mkdir()
        for n in range(30):
            height, width = generator.integers(20, 60, 2)
            pixels = generator.integers(0, 120, (height, width, 3))
            pixels[..., 2 - k] += 100
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(root / name / f"{n:02d}.{('png', 'jpg', 'bmp')[n % 3]}")
    return root


@pytest.fixture(scope="module")
def dataset(photos: Path) -> Dataset:
    return data.load(DataConfig(path=str(photos), size=24, fit="pad"))


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the bundle of an untrained model, with test_flip."""
    folder = tmp_path_factory.mktemp("run")
    experiment = Experiment().override_all(
        {"model.name": "cnn", "train.precision": "fp32", "augment.test_flip": True, "data.fit": "pad"}
        | {"data.max_pixels": 10**12}  # which nobody believes
    )
    torch.manual_seed(0)
    model = models.build(experiment.model, classes=3, channels=dataset.channels, size=dataset.size)
    about = bundle.Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    bundle.save(about, model, folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor(run, device="cpu")


def test_predictions_equal_those_of_the_evaluation(predictor: Predictor, dataset: Dataset, photos: Path) -> None:
    part = dataset.test
    assert len(part) > 5
    _, expected_NK = predictor.scorer.predict_split(predictor.model, part)
    assert np.array_equal(predictor([photos / name for name in part.ids]), expected_NK)


def test_path_bytes_image_and_array_give_the_same_prediction(predictor: Predictor, photos: Path) -> None:
    path = photos / "red" / "00.png"
    with Image.open(path) as image:
        forms: list[Any] = [path, str(path), path.read_bytes(), image.copy(), np.asarray(image)]
        alone_NK = np.concatenate([predictor([form]) for form in forms])
    assert (alone_NK == alone_NK[0]).all()
    together_NK = predictor(forms)
    assert together_NK.dtype == np.float32
    np.testing.assert_allclose(together_NK, alone_NK, rtol=1e-5)
    np.testing.assert_allclose(together_NK.sum(1), 1, rtol=1e-5)
    grey = np.zeros((10, 12), np.uint8)
    assert np.array_equal(predictor([grey]), predictor([grey[:, :, None]]))


def test_predictions_of_several_batches_keep_their_order(
    predictor: Predictor, dataset: Dataset, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(photos.rglob("*.*"))
    whole_NK = predictor(paths)
    monkeypatch.setattr(Scorer, "batch_size", 7)
    np.testing.assert_allclose(predictor(paths), whole_NK, rtol=1e-5)
    assert predictor([]).shape == (0, 3)


def test_unreadable_files_are_named_and_do_not_stop_the_others(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = photos / "red" / "00.png"
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    words = tmp_path / "words.jpg"
    words.write_text("not an image")
    with pytest.raises(DataError, match=r"cut\.png"):
        predictor([good, cut])
    monkeypatch.setattr(Scorer, "batch_size", 2)
    predictions = list(predictor.predict_files([cut, good, words, cut, tmp_path / "gone.png", str(good)]))
    assert [type(a) for a in predictions] == [Unreadable, Prediction, Unreadable, Unreadable, Unreadable, Prediction]
    assert [Path(a.path or "").name for a in predictions] == [
        "cut.png",
        "00.png",
        "words.jpg",
        "cut.png",
        "gone.png",
        "00.png",
    ]
    for prediction in predictions:
        if isinstance(prediction, Unreadable):
            assert Path(prediction.path).name in prediction.reason
            assert "\n" not in prediction.reason
        else:
            assert sorted(name for name, _ in prediction.top) == sorted(CLASSES)
            assert (prediction.class_name, prediction.probability) == prediction.top[0]
            assert prediction.top[0][1] >= prediction.top[1][1] >= prediction.top[2][1]
            assert prediction.probability == pytest.approx(float(predictor([good]).max()))


def test_arrays_of_wrong_type_or_shape_are_refused(predictor: Predictor) -> None:
    for array in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(DataError, match="is not an image"):
            predictor([array])


def test_top_breaks_ties_towards_the_lower_class(predictor: Predictor) -> None:
    assert predictor.top(np.array([0.25, 0.5, 0.25]), 2) == (("green", 0.5), ("blue", 0.25))


def test_limits_come_from_the_caller_and_not_from_the_bundle(run: Path, photos: Path) -> None:
    path = photos / "red" / "00.png"
    assert Predictor(run, device="cpu").spec.max_pixels == DataConfig.max_pixels
    with pytest.raises(DataError, match=r"more than data.max_pixels 9"):
        Predictor(run, device="cpu", max_pixels=9)([path])
    with pytest.raises(DataError, match=r"more than data.max_bytes 9"):
        Predictor(run, device="cpu", max_bytes=9)([path])


def test_at_least_one_class_is_asked_for(predictor: Predictor, photos: Path) -> None:
    for k in (0, -1):
        with pytest.raises(ConfigError, match=f"k is {k}: it must be at least 1"):
            predictor.predict([photos / "red" / "00.png"], k=k)


def test_predictions_table_round_trip(tmp_path: Path) -> None:
    probabilities_NK = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    for labels in (torch.tensor([1, 2]), [1, None]):
        save_predictions(predictions_table(("a", "b"), labels, probabilities_NK, CLASSES), tmp_path / "p.parquet")
        table = pq.read_table(tmp_path / "p.parquet")
        expected = list(labels.tolist() if isinstance(labels, Tensor) else labels)
        assert table.column("label").to_pylist() == expected
        assert table.column("label_name").to_pylist() == [None if k is None else CLASSES[k] for k in expected]
    assert table.column("image_id").to_pylist() == ["a", "b"]
    assert table.column("predicted").to_pylist() == [0, 2]
    assert table.column("predicted_name").to_pylist() == ["blue", "red"]
    assert table.column("probabilities").to_pylist() == probabilities_NK.tolist()
    assert str(table.schema.field("probabilities").type) == "fixed_size_list<element: float>[3]"
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]
    empty = predictions_table((), (), torch.zeros(0, 3), CLASSES)
    assert (empty.num_rows, empty.schema.names) == (0, table.schema.names)
    with pytest.raises(RunError, match="cannot be written"):
        save_predictions(empty, tmp_path / "gone" / "p.parquet")


def test_predictor_table_has_probabilities_and_no_labels(predictor: Predictor, photos: Path) -> None:
    paths = sorted((photos / "green").iterdir())[:4]
    predictions = [
        prediction for prediction in predictor.predict_files(paths, k=1) if isinstance(prediction, Prediction)
    ]
    table = predictor_table(predictions, predictor.class_names)
    assert table.column("image_id").to_pylist() == list(map(str, paths))
    assert table.column("label").null_count == 4
    assert table.column("predicted_name").to_pylist() == [prediction.class_name for prediction in predictions]
    assert all(prediction.top == ((prediction.class_name, prediction.probability),) for prediction in predictions)
    assert np.array_equal(np.float32(table.column("probabilities").to_pylist()), predictor(paths))
    assert predictor_table([], predictor.class_names).num_rows == 0


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing does not exist"):
        Predictor(tmp_path / "nothing")
    with pytest.raises(RunError, match="is not a run, search or bundle"):
        Predictor(tmp_path)


def test_bytes_that_are_not_an_image_are_refused(predictor: Predictor) -> None:
    with pytest.raises(DataError):
        predictor([io.BytesIO(b"nothing").getvalue()])


def test_paths_are_read_as_they_come_and_each_once(
    predictor: Predictor, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, pulled, reads = sorted(photos.rglob("*.*")), [], []
    read = image_reader.read_image_bytes
    monkeypatch.setattr(Scorer, "batch_size", 8)
    monkeypatch.setattr(image_reader, "read_image_bytes", lambda path, limit: reads.append(path) or read(path, limit))
    predictions = predictor.predict_files((pulled.append(path) or path for path in paths), maps="grad_cam")
    assert not pulled
    for n, prediction in enumerate(predictions):
        assert n < len(pulled) <= n + 2 * 8
        assert isinstance(prediction, Prediction)
        assert prediction.path == paths[n]
    assert sorted(reads) == sorted(paths)


def test_a_heatmap_is_drawn_on_request(predictor: Predictor, photos: Path) -> None:
    path = photos / "red" / "00.png"
    for maps in ("grad_cam", "integrated_gradients", "occlusion"):
        for images in ([path], [path.read_bytes()]):
            [prediction] = predictor.predict(images, maps=maps)
            assert prediction.heatmap is not None
            with Image.open(io.BytesIO(prediction.heatmap)) as drawn:
                assert drawn.format == "JPEG"
    assert predictor.predict([path])[0].heatmap is None
    with pytest.raises(ConfigError, match="lime: choose one of grad_cam"):
        predictor.predict([path], maps="lime")


def test_predictions_of_many_images_are_written_in_parts(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = predictor.predict(sorted(photos.rglob("*.*")))
    monkeypatch.setattr("classifier.bundle.predictions.ROW_GROUP", 40)
    with PredictionsWriter(tmp_path / "p.parquet", predictor.class_names) as writer:
        for prediction in predictions:
            writer.append(prediction)
        assert not (tmp_path / "p.parquet").exists()
    assert pq.read_table(tmp_path / "p.parquet").equals(predictor_table(predictions, predictor.class_names))
    assert pq.read_metadata(tmp_path / "p.parquet").num_row_groups == 3
    with pytest.raises(KeyError), PredictionsWriter(tmp_path / "q.parquet", predictor.class_names) as writer:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_a_file_name_that_is_no_text_is_saved_with_escapes(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))
    path.write_bytes((photos / "red" / "00.png").read_bytes())
    table = predictor_table(predictor.predict([path]), predictor.class_names)
    assert table["image_id"].to_pylist() == [f"{tmp_path}/bad\\udcff.png"]
