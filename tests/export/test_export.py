"""An export answers as its model, on one image and on many; one that does not is refused by name."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classifier.bundle import bundle, exported
from classifier.bundle.document import read_document
from classifier.bundle.engine_choice import open_engine
from classifier.bundle.predictor import Predictor
from classifier.data.decoding import decode
from classifier.errors import RunError
from classifier.export import folder as export_folder
from classifier.export import graph
from classifier.export.folder import GateImages, export_bundle
from classifier.metrics.decisions import Calibration
from classifier.storage.atomic import file_sha256
from tests.export.conftest import CLASSES, make_bundle

CALIBRATION = {
    "images": 50,
    "temperature": 1.7,
    "coverage": 0.9,
    "level": 0.36,
    "wish": None,
    "thresholds": None,
}


@pytest.fixture(scope="module")
def made(waves, gate, tmp_path_factory) -> Path:
    """A bundle with an export to ONNX: mirrored views, a temperature, a detector."""
    path = tmp_path_factory.mktemp("run") / "bundle"
    make_bundle(path, "resnet9_16", waves, calibration=CALIBRATION, **{"augment.test_flip": True})
    export_bundle(path, "onnx", gate)
    return path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def strange_images() -> list[np.ndarray]:
    """Images that no photograph looks like: of one colour, and noise."""
    rng = np.random.default_rng(0)
    plain = [np.full((24, 24, 3), value, np.uint8) for value in (0, 128, 255)]
    return [*plain, rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)]


def test_predictions_are_those_of_the_model(made: Path, gate: GateImages) -> None:
    images = [*gate.images_NCHW.transpose(0, 2, 3, 1), *strange_images()]
    here, torch_ = Predictor(made, device="cpu"), Predictor(made, device="cpu", engine="torch")
    assert type(here.engine).__name__ == "OnnxEngine"
    assert here(images).std(0).max() > 0.02  # images differ
    assert np.abs(here(images) - torch_(images)).max() < 1e-5
    for ours, theirs in zip(here.predict(images), torch_.predict(images), strict=True):
        assert (ours.class_name, ours.decision, ours.prediction_set) == (
            theirs.class_name,
            theirs.decision,
            theirs.prediction_set,
        )
        assert ours.is_out_of_distribution == theirs.is_out_of_distribution
    scores = [
        predictor.ood_detector.score(predictor.engine.predict(np.stack(images).transpose(0, 3, 1, 2)).statistics)
        for predictor in (here, torch_)
        if predictor.ood_detector
    ]
    assert np.abs(scores[0] - scores[1]).max() < 0.05
    assert here.predict(images[:1], maps="grad_cam")[0].heatmap


def test_the_document_says_how_it_was_made(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir() if path.is_dir()) == ["onnx"]
    assert not [path for path in made.iterdir() if path.name.startswith(".")]
    about = json.loads((made / "onnx" / "export.json").read_text())
    assert about["class_names"] == list(CLASSES)
    assert (about["precision"], about["temperature"], about["test_flip"]) == ("fp32", 1.7, True)
    assert about["weights_sha256"] == file_sha256(made / "model.safetensors")
    assert about["parity"]["batches"] == [1, 2, 7, 33]
    assert about["parity"]["max_difference"] < 1e-5
    assert about["parity"]["farthest"].startswith("validation/")


def test_a_folder_to_deploy_predicts_and_has_no_weights(made: Path, gate: GateImages, tmp_path: Path) -> None:
    export_bundle(made, "onnx", gate, tmp_path / "deploy")
    names = sorted(path.name for path in (tmp_path / "deploy").iterdir())
    assert names == ["bundle.json", "novelty.safetensors", "onnx"]
    images = list(gate.images_NCHW[:5].transpose(0, 2, 3, 1))
    assert np.array_equal(Predictor(tmp_path / "deploy", device="cpu")(images), Predictor(made, device="cpu")(images))
    with pytest.raises(RunError, match="already exists"):
        export_bundle(made, "onnx", gate, tmp_path / "deploy")


@pytest.mark.parametrize("kind", ["openvino", "torch_export"])
def test_other_formats_agree(kind: str, copied: Path, gate: GateImages) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    assert export_bundle(copied, kind, gate).document["parity"]["max_difference"] < 1e-5
    if kind == "openvino":
        images = list(gate.images_NCHW.transpose(0, 2, 3, 1))
        answers = [Predictor(copied, device="cpu", engine=engine)(images) for engine in ("openvino", "torch")]
        assert np.abs(answers[0] - answers[1]).max() < 1e-5


def swap_classes(path: Path) -> None:
    edit(path / "onnx" / "export.json", lambda about: about["class_names"].reverse())


def swap_classes_everywhere(path: Path) -> None:
    swap_classes(path)
    edit(path / "bundle.json", lambda about: about["class_names"].reverse())


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def flip_byte(path: Path) -> None:
    content = bytearray((path / "onnx" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "onnx" / "model.onnx").write_bytes(content)


def freeze_batch(path: Path) -> None:
    import onnx

    model = onnx.load(path / "onnx" / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    replace_graph(path, model)


def brighten(path: Path) -> None:
    """Another normalisation: the first constant that is added to the images."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path / "onnx" / "model.onnx")
    [shift] = [one for one in model.graph.initializer if one.name == "shift_C11"]
    shift.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shift) + np.float32(0.3), "shift_C11"))
    replace_graph(path, model)


def replace_graph(path: Path, model: Any) -> None:
    import onnx

    onnx.save(model, path / "onnx" / "model.onnx")
    reseal(path, "model.onnx")


def reseal(path: Path, name: str) -> None:
    checksum = file_sha256(path / "onnx" / name)
    edit(path / "onnx" / "export.json", lambda about: about["files"][name].update(sha256=checksum))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (flip_byte, r"model\.onnx was changed"),
        (swap_classes, "class names differ in order"),
        (swap_classes_everywhere, "class names differ in order"),
        (freeze_batch, "the graph takes batches of 2 only"),
        (brighten, "answers differently on this machine"),
        (
            lambda path: edit(path / "onnx" / "export.json", lambda about: about.update(fit="stretch")),
            "preprocessing differs: fit is stretch, but crop in bundle.json",
        ),
        (
            lambda path: edit(path / "bundle.json", lambda about: about.update(mean=[0.1, 0.2, 0.3])),
            "preprocessing differs: mean",
        ),
        (lambda path: edit(path / "onnx" / "export.json", lambda about: about.pop("layers")), "layers is missing"),
        (lambda path: (path / "onnx" / "sample.safetensors").write_bytes(b"no"), r"sample\.safetensors was changed"),
        (lambda path: (path / "onnx" / "model.onnx").unlink(), r"model\.onnx cannot be read"),
    ],
)
def test_a_planted_fault_is_refused_by_name(fault: Callable[[Path], object], message: str, copied: Path) -> None:
    fault(copied)
    with pytest.raises(RunError, match=message):
        Predictor(copied, device="cpu")


def test_other_decoding_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = decode.decode_bytes
    monkeypatch.setattr(decode, "decode_bytes", lambda content, spec: np.roll(original(content, spec), 1, -1))
    with pytest.raises(RunError, match=r"preprocessing differs: image 0 of its sample .* grey values"):
        Predictor(copied, device="cpu")


def test_a_stale_export_is_not_used(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(copied / "onnx" / "export.json", lambda about: about.update(weights_sha256="0" * 64))
    assert type(Predictor(copied, device="cpu").engine).__name__ == "TorchEngine"
    assert "onnx is not used, since the model was trained further" in caplog.text
    with pytest.raises(RunError, match="was trained further"):
        Predictor(copied, device="cpu", engine="onnx")


def test_an_export_outlives_a_calibration_that_it_does_not_fit(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = bundle.load(copied)
    calibration = Calibration(images=99, temperature=3.0).as_dict()
    bundle.save(dataclasses.replace(loaded.bundle, calibration=calibration), loaded.model, copied)
    assert (copied / "onnx" / "model.onnx").is_file()
    assert type(Predictor(copied, device="cpu").engine).__name__ == "TorchEngine"
    assert "onnx is not used, since the model was calibrated again" in caplog.text


@pytest.mark.parametrize("fault", ["wrong normalisation", "swapped classes", "frozen batch"])
def test_an_export_that_disagrees_leaves_nothing_behind(
    fault: str, copied: Path, gate: GateImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(copied.rglob("*"))
    forward = graph.Graph.forward
    if fault == "wrong normalisation":
        monkeypatch.setattr(graph.Graph, "forward", lambda self, x: forward(self, (x // 2).to(torch.uint8)))
        message = r"does not agree with the model: validation/\d+\.png differs most, .* by the model, .* exported"
    elif fault == "swapped classes":
        monkeypatch.setattr(
            graph.Graph, "forward", lambda self, x: (forward(self, x)[0].flip(1), *forward(self, x)[1:])
        )
        message = "differs most"
    else:
        monkeypatch.setattr(torch.export, "Dim", lambda _name: None)
        message = "takes batches of 2 only"
    for out in (None, tmp_path / "deploy") if fault == "wrong normalisation" else (None,):
        with pytest.raises(RunError, match=message):
            export_bundle(copied, "onnx", gate, out)
    assert sorted(copied.rglob("*")) == before
    assert not (tmp_path / "deploy").exists()


def test_images_of_the_test_split_are_not_read(waves) -> None:
    empty = dataclasses.replace(waves.validation, images_NCHW=waves.validation.images_NCHW[:0], ids=())
    chosen = GateImages.select(dataclasses.replace(waves, validation=empty))
    assert chosen.split == "train"
    assert len(chosen.ids) == len(waves.train)
    assert export_folder.MAX_IMAGES >= 43


def test_without_an_export_and_with_an_unknown_engine(waves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_bundle(tmp_path / "bundle", "cnn", waves)
    with pytest.raises(RunError, match="holds no export to onnx: make one"):
        Predictor(path, engine="onnx")
    monkeypatch.setattr("classifier.bundle.engine_choice.has_torch", lambda: False)
    with pytest.raises(RunError, match="holds no export to onnx, and torch is not installed here"):
        open_engine(path, "auto", "auto", None, lambda: bundle.load(path))
    assert not exported.is_exported(path, "onnx")
    assert read_document(path)["class_names"] == list(CLASSES)
