"""Opening what someone has sent runs no code: models by import path are imported only if the user names them.

Modules are planted where a document's import path would find them: in its own folder, below the working directory,
where folders are namespace packages.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import classifier
from classifier.bundle import bundle
from classifier.config import trust
from classifier.config.sections import ModelConfig
from classifier.data.decoding.tasks import Task
from classifier.data.decoding.worker_processes import DecodeWorker
from classifier.errors import ModelError
from classifier.models import build
from tests.report.run_files import write_run

NET = """
from pathlib import Path
from torch import nn

Path({ran!r}).touch()

class Net(nn.Module):
    def __init__(self, classes, channels=3, size=32):
        super().__init__()
        self.head = nn.Linear(channels * size * size, classes)
    def forward(self, x):
        return self.head(x.flatten(1))
"""
NAME = "gift.net:Net"
ASKED = "would import code"


@pytest.fixture
def ran(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file that exists once a planted module has run. Nothing is trusted, and the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_trusted", set())
    yield tmp_path / "ran"
    for name in ("gift", "gift.net", "own_net"):
        sys.modules.pop(name, None)


@pytest.fixture
def gift(ran, tmp_path) -> Path:
    """A run that was sent: its documents name a model in a file that came with it."""
    folder = write_run(tmp_path / "gift", ("a", "b"), data_path="digits")
    (folder / "net.py").write_text(NET.format(ran=str(ran)))
    document = json.loads((folder / "bundle" / "bundle.json").read_text())
    document["model"]["name"] = document["experiment"]["model"]["name"] = NAME
    (folder / "bundle" / "bundle.json").write_text(json.dumps(document))
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text())
    experiment["model"]["name"] = NAME
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    shutil.copy(folder / "experiment.yaml", "experiment.yaml")
    Path("space.yaml").write_text(yaml.safe_dump({"model.name": ["cnn", NAME]}))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "predict gift x.png",
        "predict gift/bundle x.png",
        "robust gift",
        "train --resume gift",
        "train digits --experiment experiment.yaml",
        "train digits --experiment experiment.yaml --dry_run",
        "show digits --experiment experiment.yaml",
        "tune digits --experiment experiment.yaml --dry_run",
        "tune digits --search.space space.yaml --dry_run",
        "crossval digits --experiment experiment.yaml",
        "curve digits --experiment experiment.yaml",
        "plan digits --experiment experiment.yaml",
        "drill digits --experiment experiment.yaml",
    ],
)
def test_verbs_import_nothing_that_only_a_document_names(words, gift, ran, here):
    (gift.parent / "x.png").write_bytes(b"")
    done = here(*words.split())
    assert (done.code, ASKED in done.err, ran.exists()) == (2, True, False), done.err
    assert f"--trust {NAME}" in done.err


@pytest.mark.parametrize("words", ["evaluate gift", "evaluate gift/bundle --data digits", "calibrate gift"])
def test_verbs_that_read_the_data_first_import_nothing(words, gift, ran, here):
    done = here(*words.split())
    assert (done.code, "other images" in done.err, ran.exists()) == (2, True, False), done.err


def test_python_imports_nothing_that_only_a_document_names(gift, ran):
    for open_it in (
        lambda: classifier.load(gift),
        lambda: classifier.Predictor(gift),
        lambda: classifier.Run(gift, trust=("other.net:Net",)) and bundle.load(gift),
        lambda: classifier.resume(gift, progress=False),
        lambda: classifier.train("digits", experiment="experiment.yaml", progress=False),
    ):
        with pytest.raises(ModelError, match=ASKED):
            open_it()
    assert not ran.exists()


@pytest.mark.parametrize("package", ["gift", "gift.bundle", "gift.deep.er"])
def test_even_a_trusted_name_is_not_imported_from_a_run_or_bundle(package, gift, ran):
    folder = gift.parent.joinpath(*package.split("."))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET.format(ran=str(ran)))
    name = f"{package}.net:Net"
    classifier.trust(name)
    with pytest.raises(ModelError, match="nothing is imported from a folder of data, a run or a bundle"):
        build(ModelConfig(name=name), classes=3, channels=3, size=8)
    assert not ran.exists()


def test_working_directory_that_is_a_bundle_is_no_place_to_import_from(gift, ran, monkeypatch):
    (gift / "bundle" / "own_net.py").write_text(NET.format(ran=str(ran)))
    monkeypatch.chdir(gift / "bundle")
    classifier.trust("own_net:Net")
    with pytest.raises(ModelError):
        build(ModelConfig(name="own_net:Net"), classes=3, channels=3, size=8)
    assert not ran.exists()


def test_nothing_is_imported_from_the_data(ran, tmp_path, here):
    data = tmp_path / "photos"
    data.mkdir()
    (data / "own_net.py").write_text(NET.format(ran=str(ran)))
    write_images(data)
    done = here("train", "photos", "--model.name", "photos.own_net:Net", "--train.epochs", "1")
    assert (done.code, ran.exists()) == (2, False), done.err
    assert "nothing is imported from a folder of data" in done.err


def write_images(folder: Path) -> None:
    for k, name in enumerate(("a", "b")):
        (folder / name).mkdir()
        for n in range(20):
            Image.fromarray(np.full((8, 8, 3), 100 * k + n, np.uint8)).save(folder / name / f"{n}.png")


@pytest.mark.parametrize("module", ["numpy", "struct", "PIL"])
def test_processes_that_decode_import_nothing_from_the_working_directory(module, ran, tmp_path):
    (tmp_path / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')")
    Image.new("RGB", (8, 8)).save("image.gif")
    worker = DecodeWorker(Task.thumbnail(8, 1000), 60.0)
    (reply,) = worker.decode([Path("image.gif").read_bytes()])
    worker.close()
    assert (type(reply), ran.exists()) == (bytes, False)


def test_what_the_user_names_is_imported_and_needs_trust_again_from_the_run(ran, tmp_path, here):
    Path("own_net.py").write_text(NET.format(ran=str(ran)))
    done = here("train", "digits", "--model.name", "own_net:Net", "--train.epochs", "1", "--name", "own")
    assert (done.code, ran.exists()) == (0, True), done.err
    assert "evaluate.py runs/own --trust own_net:Net" in done.out or "evaluate runs/own --trust own_net:Net" in done.out
    trust._trusted.clear()
    with pytest.raises(ModelError, match=ASKED):
        classifier.load("runs/own")
    assert classifier.load("runs/own", trust=("own_net:Net",)).class_names == tuple("0123456789")


def test_trust_takes_import_paths_only(here):
    done = here("predict", "--trust", "runs/a", "runs/a", "x.png")
    assert (done.code, "no import path" in done.err) == (2, True)
