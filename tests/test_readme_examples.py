"""README's commands and Python run, and print what it shows: the same lines, with other numbers and classes."""

import re
import shlex
from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from PIL import Image

from tests.conftest import draw_photos

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
MAX_BYTES = 10_240
CLASSES = ("food", "mammal", "object", "other_animal", "plant")
# What a test can afford.
SHORTER = {"--search.minutes 3": "--search.trials 2 --train.epochs 3"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def mask(line: str) -> str:
    """A line without what differs from run to run: numbers, classes, settings and predictions."""
    line = re.sub(r"python \S*jobs/(\w+)\.py", r"classifier \1", line)  # the tests start the scripts
    line = re.sub(r"\S*(?=runs/)", "", line)
    line = re.sub(r"(?<=\.png: ).*", "...", line)
    line = re.sub(r"^[0-9a-f]{8} .*", "a trial", line)
    line = re.sub(r"(?<=trial )[0-9a-f]{8}", "#", line)
    line = re.sub("|".join(CLASSES), "CLASS", line)
    line = re.sub(r"\b(bf16|fp32)\b", "PRECISION", line)
    line = re.sub(r"\b(\d+:\d\d|[\d.]+ s)\b", "TIME", line)
    line = re.sub(r"\d[\d,.]*", "#", line)
    return " ".join(line.replace("*", " ").split())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photos/, weights and an image, as README's user has."""
    import timm

    draw_photos(tmp_path / "photos" / "train", dict.fromkeys(CLASSES, 24), size=48)
    draw_photos(tmp_path / "photos" / "test", dict.fromkeys(CLASSES, 6), size=48, seed=1)
    torch.save(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), tmp_path / "lite0.pth")
    for name in ("cherry.png", "dolphin.png"):
        Image.open(tmp_path / "photos" / "test" / "food" / "000.png").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_is_short():
    assert len(README.encode()) <= MAX_BYTES


def test_commands_print_what_the_readme_shows(folder, verb_in):
    shown = [block.split("$ classifier ", 1)[1] for block in blocks("console")]
    for text in shown:
        command, *lines = text.splitlines()
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        words = shlex.split(command)
        done = verb_in(folder, *words)
        assert done.code == 0, f"{command}\n{done.err}"
        printed = [mask(line) for line in done.out.splitlines()]
        for line in lines:
            if line.strip() in ("", "..."):
                continue
            assert mask(line) in printed, f"{command} does not print {line!r}:\n{done.out}"
            printed = printed[printed.index(mask(line)) + 1 :]


@pytest.mark.long
def test_python_runs_as_a_notebook(folder):
    """In the kernel of this environment, with the progress and the report in its output."""
    [code] = [block for block in blocks("python") if "classifier.train" in block]
    cells = [nbformat.v4.new_code_cell(code.replace("minutes=5", "minutes=0.3"))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = notebook.cells[0].outputs
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "epoch" in text
    assert "<test accuracy" in text
    assert "cherry.png" in text
    [page] = [output.data["text/html"] for output in outputs if output.output_type == "execute_result"]
    assert page.startswith("<iframe")
    assert [output for output in outputs if output.output_type == "error"] == []
