"""Predicting from an export needs neither torch nor Ray, installed or not."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.bundle.predictor import Predictor
from classifier.export.folder import export_bundle
from tests.export.conftest import CLASSES, make_bundle

ROOT = Path(__file__).resolve().parents[2]
REFUSED = ("torch", "torchvision", "timm", "ray", "scipy", "sklearn", "pyarrow", "matplotlib", "tqdm", "jinja2")
# As if the packages were not installed.
HOOK = f"""
import sys
sys.modules.update(dict.fromkeys({REFUSED!r}))
"""


@pytest.fixture(scope="module")
def deployed(waves, gate, tmp_path_factory) -> Path:
    """A folder to deploy, and beside it images: a JPEG and a PNG."""
    folder = tmp_path_factory.mktemp("deployed")
    bundle = make_bundle(folder / "bundle", "resnet9_16", waves)
    export_bundle(bundle, "onnx", gate, folder / "deploy")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 41, 3), dtype=np.uint8)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(pixels).save(folder / name)
    return folder


def run(program: str, cwd: Path, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), "-c", program], capture_output=True, text=True, cwd=cwd, env=environment)


def test_python_predicts_without_torch(deployed: Path) -> None:
    code = f"""
sys.path.insert(0, {str(ROOT)!r})
import classifier, json
predictor = classifier.Predictor("deploy")
[first, second] = predictor.predict(["a.jpg", "b.png"])
print(json.dumps([first.class_name, first.probabilities.tolist(), predictor(["a.jpg", "b.png"]).tolist()]))
try:
    classifier.train
except ImportError as error:
    print(error)
"""
    done = run(HOOK + code, deployed)
    assert done.returncode == 0, done.stderr
    answers, missing = done.stdout.splitlines()
    name, probabilities, called = json.loads(answers)
    assert name in CLASSES
    assert called[0] == probabilities
    expected = Predictor(deployed / "bundle", device="cpu", engine="torch")([deployed / "a.jpg", deployed / "b.png"])
    difference = np.abs(np.array(called) - expected).max(1)
    assert difference[0] < 0.01  # pixels of a JPEG are resized with differences of a grey value
    assert difference[1] < 1e-5
    assert missing == 'torch is not installed: pip install "classifier-jobs[train]"'


@pytest.mark.parametrize(
    ("verb", "words", "code", "said"),
    [
        ("predict", ["deploy", "a.jpg", "b.png"], 0, "a.jpg: "),
        ("predict", ["bundle", "a.jpg"], 2, "holds no export to onnx"),
        ("predict", ["deploy", "a.jpg", "--engine", "torch"], 2, 'pip install "classifier-jobs[train]"'),
        ("train", ["."], 2, 'torch is not installed: pip install "classifier-jobs[train]"'),
    ],
)
def test_verbs_say_what_is_missing(verb: str, words: list[str], code: int, said: str, deployed: Path) -> None:
    program = f"""
import runpy
sys.argv = [{str(ROOT / "jobs" / f"{verb}.py")!r}, *{words!r}]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = run(HOOK + program, deployed)
    assert done.returncode == code, done.stderr
    text = " ".join((done.stdout + done.stderr).split())
    assert said in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_the_base_install_predicts(deployed: Path, tmp_path: Path) -> None:
    """Needs a package index. Prints the size of what was installed."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "checkout" / name)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    before = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(tmp_path / "checkout")], check=True)
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) - before
    print(f"installed: {size / 1e6:.0f} MB")
    assert size < 250e6
    assert not any((packages / name).exists() for name in REFUSED)
    command = [tmp_path / "venv" / "bin" / "classifier", "predict", "deploy", "a.jpg", "b.png"]
    done = subprocess.run(command, cwd=deployed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.jpg: ")
