"""A loaded bundle is the model that was evaluated, or is refused in one sentence."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classifier import models
from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.bundle.schema import BundleDocument
from classifier.config import trust
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.errors import RunError
from classifier.evaluation.calibrate import calibrate_bundle, calibrate_saved_bundle
from classifier.inference.scorer import Scorer

CPU = torch.device("cpu")


TIED = '''
from torch import Tensor, nn


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self, *, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * size * size, 16, bias=False)
        self.again = nn.Linear(channels * size * size, 16, bias=False)
        self.again.weight = self.first.weight
        self.head = nn.Linear(16, classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        features = images_NCHW.flatten(1)
        return self.head(self.first(features).relu() + self.again(features))
'''


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Random grey images in ten classes."""
    generator = torch.Generator().manual_seed(0)

    def make_split(split: str, count: int) -> Split:
        images_NCHW = torch.randint(256, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
        labels_N = torch.randint(10, (count,), generator=generator)
        return Split(images_NCHW, labels_N, tuple(f"{split}/{n}" for n in range(count)))

    return Dataset(
        name="noise",
        kind="photos",
        class_names=tuple("abcdefghij"),
        train=make_split("train", 100),
        validation=make_split("validation", 90),
        test=make_split("test", 60),
        mean=(0.1 + 0.2,),
        std=(1 / 3,),
        fit="crop",
        fingerprint="0123456789abcdef",
        findings=(),
        split_record={},
    )


def experiment_with(dataset: Dataset, **changes: Any) -> Experiment:
    """A resolved experiment, as far as a bundle needs it."""
    resolved = {"data.size": dataset.size, "data.channels": dataset.channels, "train.precision": "fp32"}
    return Experiment().override_all(resolved | {"model.name": "cnn"} | changes)


def made(experiment: Experiment, dataset: Dataset) -> tuple[Bundle, nn.Module]:
    torch.manual_seed(1)
    model = models.build(
        experiment.model, classes=len(dataset.class_names), channels=dataset.channels, size=dataset.size
    )
    scorer = Scorer.from_experiment(experiment, dataset, CPU)
    scorer.prepare_model(model).train()
    for _ in range(2):  # so that running statistics differ from a new model's
        scorer.forward(model, torch.rand(16, dataset.channels, dataset.size, dataset.size))
    scores = {"validation": scorer.compute_scores(model, dataset.validation)}
    return Bundle.from_training(experiment, dataset, scores=scores, epoch=3), model


def weights(folder: Path) -> dict[str, Tensor]:
    return bundle.load(folder)[1].state_dict()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["cnn", "resnet9_16"])
def test_save_and_load_is_bit_exact(name: str, precision: str, dataset: Dataset, tmp_path: Path) -> None:
    experiment = experiment_with(dataset, **{"model.name": name, "train.precision": precision})
    about, model = made(experiment, dataset)
    bundle.save(about, model, tmp_path / "bundle")
    again, loaded = bundle.load(tmp_path)
    assert dataclasses.asdict(again) == json.loads(json.dumps(dataclasses.asdict(about))) | {
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
    }
    assert not loaded.training
    part = dataset.validation
    before_NK = Scorer.from_experiment(experiment, dataset, CPU).predict_split(model, part)[1]
    assert torch.equal(again.scorer(CPU).predict_split(loaded, part)[1], before_NK)
    assert again.scores["validation"] == again.scorer(CPU).compute_scores(loaded, part)


def test_tied_weights_and_a_user_defined_model(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tied_model.py").write_text(TIED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trust, "_trusted", {"tied_model:Tied"})
    about, model = made(experiment_with(dataset, **{"model.name": "tied_model:Tied"}), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    again, loaded = bundle.load(tmp_path / "bundle")
    assert loaded.get_parameter("first.weight") is loaded.get_parameter("again.weight")
    images_NCHW = dataset.validation.images_NCHW[:]
    before_NK = about.scorer(CPU).predict_probabilities(model, images_NCHW)
    assert torch.equal(again.scorer(CPU).predict_probabilities(loaded, images_NCHW), before_NK)


def test_document_is_strict_readable_json(dataset: Dataset, tmp_path: Path) -> None:
    about, model = made(experiment_with(dataset), dataset)
    odd = ("[1,\n 2]", "お", *dataset.class_names[2:])
    bundle.save(dataclasses.replace(about, class_names=odd), model, tmp_path / "bundle")
    text = (tmp_path / "bundle" / "bundle.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(text, parse_constant=refuse)
    assert document["class_names"] == list(odd)
    assert document["scores"]["test"] is None
    assert document["provenance"]["epoch"] == 3
    assert document["files"]["model.safetensors"]["sha256"]
    assert len(text.splitlines()) < 400, "one line per row of the confusion matrix"


def corrupt_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(document | changes))

    return edit


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tampered weights": (corrupt_weights, "checksum differs"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
    "newer format": (edited(format_version=99), r"bundle\.json.*99.*reads 1"),
    "no format": (edited(format_version=None), "format_version is None"),
    "other model": (edited(model={"name": "resnet9_16"}), "do not fit model.name resnet9_16"),
    "unknown setting": (edited(model={"name": "cnn", "wings": 2}), "corrupted.*wings"),
    "bad setting": (edited(model={"name": "cnn", "dropout": 7}), "corrupted.*dropout"),
    "half a document": (lambda folder: (folder / "bundle.json").write_text('{"format_version": 1'), "corrupted"),
    "a list": (lambda folder: (folder / "bundle.json").write_text("[]"), "must be an object"),
    "keys missing": (lambda folder: (folder / "bundle.json").write_text('{"format_version": 1}'), "corrupted"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupted_bundle_is_refused_in_one_line(corruption: str, dataset: Dataset, tmp_path: Path) -> None:
    bundle.save(*made(experiment_with(dataset), dataset), tmp_path / "bundle")
    corrupt, message = CORRUPTIONS[corruption]
    corrupt(tmp_path / "bundle")
    with pytest.raises(RunError, match=message) as caught:
        bundle.load(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


def test_find_accepts_a_run_search_or_bundle_folder(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    bundle.save(*made(experiment_with(dataset), dataset), run / "bundle")
    assert bundle.find(run) == bundle.find(str(run / "bundle")) == run / "bundle"
    monkeypatch.chdir(run)
    assert bundle.read(".").class_names == dataset.class_names
    with pytest.raises(RunError, match="no-such does not exist"):
        bundle.find(tmp_path / "no-such")
    with pytest.raises(RunError, match="is not a run, search or bundle folder"):
        bundle.find(tmp_path)
    (tmp_path / "experiment.yaml").touch()
    with pytest.raises(RunError, match=r"has no model yet.*--resume"):
        bundle.find(tmp_path)


class KilledError(Exception):
    """The process fails here."""


def fail(*_: object, **__: object) -> None:
    raise KilledError


def fail_second_rename(source: Path, target: Path) -> Path:
    """Fail between the two renames: the older bundle is moved aside, the new one not yet in its place."""
    if source.name.endswith(".part") and source.is_dir():
        raise KilledError
    shutil.move(source, target)
    return target


@pytest.mark.parametrize(
    ("target", "death"),
    [
        ("safetensors.torch.save_file", fail),
        ("classifier.bundle.bundle.write_atomically", fail),
        ("pathlib.Path.rename", fail),
        ("pathlib.Path.rename", fail_second_rename),
    ],
    ids=["before the weights", "before the document", "before the renames", "between the renames"],
)
def test_killed_save_leaves_the_older_bundle_complete(
    target: str, death: Callable[..., object], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, model = made(experiment_with(dataset), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    older = weights(tmp_path)
    newer = {name: value + 1 for name, value in older.items()}
    model.load_state_dict(newer)
    with monkeypatch.context() as patch:
        patch.setattr(target, death)
        with pytest.raises(KilledError):
            bundle.save(about, model, tmp_path / "bundle")
    for path in (tmp_path, tmp_path / "bundle"):
        torch.testing.assert_close(weights(path), older, rtol=0, atol=0)

    bundle.save(about, model, tmp_path / "bundle")
    torch.testing.assert_close(weights(tmp_path), newer, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"], "no partial files are left"
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["bundle.json", "model.safetensors"]


UNMEASURED = {"validation": None, "test": None}


def test_load_while_the_bundle_is_replaced(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about, model = made(experiment_with(dataset), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    newer = {name: value + 1 for name, value in weights(tmp_path).items()}
    model.load_state_dict(newer)
    read_weights, saved = bundle._read_tensors, []

    def save_first(path: Path, document: BundleDocument) -> dict[str, Tensor]:
        if not saved:
            saved.append(bundle.save(dataclasses.replace(about, scores=UNMEASURED), model, tmp_path / "bundle"))
        return read_weights(path, document)

    monkeypatch.setattr(bundle, "_read_tensors", save_first)
    again, loaded = bundle.load(tmp_path)
    assert again.scores == UNMEASURED
    torch.testing.assert_close(loaded.state_dict(), newer, rtol=0, atol=0)


def test_save_never_replaces_a_folder_that_is_not_a_bundle(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(RunError, match="is not a bundle"):
        bundle.save(*made(experiment_with(dataset), dataset), tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").exists()


def test_update_scores_leaves_the_weights_alone(dataset: Dataset, tmp_path: Path) -> None:
    about, model = made(experiment_with(dataset), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    scores = about.scorer(CPU).compute_scores(model, dataset.test)
    assert bundle.update_scores(tmp_path, "test", scores).scores["test"] == scores
    again, _ = bundle.load(tmp_path)
    assert again.scores == {"validation": about.scores["validation"], "test": scores}
    with pytest.raises(RunError, match="not for 'tests'"):
        bundle.update_scores(tmp_path, "tests", scores)


def test_fp16_becomes_fp32_on_a_cpu(dataset: Dataset) -> None:
    about = Bundle.from_training(experiment_with(dataset, **{"train.precision": "fp16"}), dataset, scores={}, epoch=1)
    assert about.scorer(CPU).precision == "fp32"
    assert about.scorer(torch.device("cuda")).precision == "fp16"


def test_bundle_moved_aside_by_a_killed_save_is_saved_in_its_old_place(dataset: Dataset, tmp_path: Path) -> None:
    about, model = made(experiment_with(dataset), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    assert bundle.bundle_folder(tmp_path) == tmp_path / "bundle"
    (tmp_path / "bundle").rename(tmp_path / ".bundle.older")
    assert bundle.find(tmp_path) == tmp_path / ".bundle.older"
    assert bundle.bundle_folder(tmp_path) == tmp_path / "bundle"
    calibrate_saved_bundle(tmp_path, dataset, tmp_path, device="cpu")
    assert bundle.find(tmp_path) == tmp_path / "bundle"
    assert not (tmp_path / ".bundle.older").exists()


def test_calibrated_bundle_predicts_calibrated_probabilities(dataset: Dataset, tmp_path: Path) -> None:
    about, model = made(experiment_with(dataset), dataset)
    bundle.save(about, model, tmp_path / "bundle")
    _, probabilities_NK = calibrate_bundle(bundle.load(tmp_path), dataset, precision=0.5)
    known = calibrate_saved_bundle(tmp_path, dataset, tmp_path, device="cpu", precision=0.5).bundle
    again, loaded = bundle.load(tmp_path)
    assert again.calibration == json.loads(json.dumps(known.calibration))
    torch.testing.assert_close(again.scorer(CPU).predict_split(loaded, dataset.validation)[1], probabilities_NK)
    assert again.scores["validation"]["accuracy"] == known.scores["validation"]["accuracy"]
    found = bundle.load_ood_detector(tmp_path)
    assert found is not None
    assert "limit" in found.arrays
    (tmp_path / "bundle" / "novelty.safetensors").write_bytes(b"corrupted")
    with pytest.raises(RunError, match="its checksum differs"):
        bundle.load_ood_detector(tmp_path)
