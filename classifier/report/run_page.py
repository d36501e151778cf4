"""report.html and model_card.md: what a run made, how far it can be trusted and where it fails, from saved results.

One page that needs no network. Its sections are those that the run folder has files for: it is the same code for a
training, a search, a cross-validation, and for a run that still goes on.
"""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.files import read_experiment
from classifier.errors import RunError
from classifier.report import html, model_card, model_sections, sentences, study_sections
from classifier.report.html import items, section
from classifier.runs.folder import REQUESTED_EXPERIMENT, HARD_EXAMPLES, PREDICTIONS, ROBUSTNESS, SCORES, read_history, read_result

NAME, CARD = "report.html", "model_card.md"
# Names of classes that the page has room for.
CLASSES = 60


def write(folder: str | Path, *, refresh: float | None = None) -> Path:
    """Make the page of a run or search folder, and its model card. RunError if there is no run.

    refresh: seconds after which a browser loads the page again, while the run goes on.
    """
    folder = Path(folder)
    if not (folder / "experiment.yaml").is_file():
        raise RunError(
            f"{folder} is no run folder (it has no experiment.yaml): give OUT/NAME of a training or a search"
        )
    found = _Found(folder)
    if found.made is not None:
        model_card.write(folder / CARD, found.made, found.result, found.split)
    return html.write(folder / NAME, f"Report of {folder.name}", _sections(found), refresh=refresh)


class _Found:
    """What lies in a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, read_history(folder)
        self.result = read_result(folder) if (folder / "result.json").exists() else {}
        self.experiment = read_experiment(folder / "experiment.yaml")
        try:
            self.made: Bundle | None = bundle.read(folder)
        except RunError:
            self.made = None
        scores = self.made.scores if self.made else {}
        self.split = next((split for split in ("test", "validation") if "intervals" in (scores.get(split) or {})), "")
        self.scores: dict[str, Any] = scores[self.split] if self.split else {}
        if (folder / SCORES).is_file():  # a cross-validation: each image was new to the model that it was shown
            self.scores, self.split = json.loads((folder / SCORES).read_text()), "test"
        self.data: dict[str, Any] = self.made.dataset if self.made else self.result.get("dataset") or {}

    def predictions(self) -> tuple[Tensor, Tensor] | None:
        """probabilities_NK and labels_N of the split that is told of."""
        import pyarrow.parquet as pq

        path = self.folder / PREDICTIONS.get(self.split, "none")
        if not path.is_file():
            return None
        read = pq.read_table(path, columns=["label", "probabilities"])
        flat = read["probabilities"].combine_chunks().flatten().to_numpy()
        probabilities = torch.from_numpy(flat.reshape(len(read), -1).copy())
        return probabilities, torch.from_numpy(read["label"].to_numpy().copy())

    def split_record(self) -> dict[str, Any]:
        """Return split.json; empty if there is none."""
        path = self.folder / "split.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def mistakes(self) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        path = self.folder / HARD_EXAMPLES.get(self.split, "none")
        return pq.read_table(path).to_pylist() if path.is_file() else []


def _sections(found: _Found) -> Iterator[str]:
    yield _summary(found)
    yield _data(found)
    if found.history:
        yield model_sections.training(found.history)
    if "folds" in found.result:
        yield study_sections.folds(found.result["folds"])
    if "curve" in found.result:
        yield study_sections.curve(found.result["curve"])
    if found.scores:
        yield model_sections.confusion(found.scores)
        yield model_sections.classes(found.scores)
    answers = found.predictions()
    if answers is not None:
        yield model_sections.belief(found.made, *answers)
    mistakes = found.mistakes()
    if mistakes:
        yield model_sections.mistakes(mistakes, found.split)
    if (found.folder / ROBUSTNESS).is_file():
        yield study_sections.robustness(json.loads((found.folder / ROBUSTNESS).read_text()))
    if "trials" in found.result:
        yield study_sections.search(found.result)
    yield _proven(found)
    yield _again(found)


def _summary(found: _Found) -> str:
    made, result = found.made, found.result
    name = found.data.get("name", found.experiment.data.path)
    what = {"crossval": "a cross-validation on", "curve": "a learning curve of"}.get(
        result.get("kind", ""), "a classifier of"
    )
    parts = [f"<h1>{escape(found.folder.name)}: {what} {escape(str(name))}</h1>"]
    if not result:
        parts.append('<p class="warning">This run still goes on; what follows is of its last epoch.</p>')
    elif result["status"] != "finished":
        parts.append(f'<p class="warning">This run is {escape(result["status"])}, not finished.</p>')
    if found.scores:
        parts.append(f'<p class="big">{escape(sentences.of(found.scores, is_test=found.split == "test"))}</p>')
        parts.append(items(sentences.details(found.scores)))
    elif "curve" in result:
        parts.append(items(result["curve"]["says"]))
    elif made is None:
        parts.append('<p class="big">There is no model yet.</p>')
    if made is not None:
        size = (bundle.find(found.folder) / bundle.WEIGHTS).stat().st_size / 1e6
        words = f"{made.model['name']}, images of {made.size} x {made.size}, {size:.1f} MB of weights"
        parts.append(f'<p class="faint">{escape(words)}.</p>')
    return "".join(parts)


def _data(found: _Found) -> str:
    data = found.data
    if not data:
        return section("Data", f"<p>{escape(found.experiment.data.path)}</p>")
    counts = ", ".join(f"{count:,} {split}" for split, count in data["counts"].items())
    names = data["class_names"]
    classes = ", ".join(names[:CLASSES]) + (", ..." if len(names) > CLASSES else "")
    content = f"<p>{escape(data['name'])}: {counts} images of {len(names)} classes: {escape(classes)}.</p>"
    findings = data.get("findings") or []
    content += items(findings) if findings else '<p class="faint">Nothing was found wrong with them.</p>'
    return section("Data", content, "What was found when the images were read; jobs/audit.py looks closer.")


def _proven(found: _Found) -> str:
    lines, result = [], found.result
    reads = result.get("test_reads") or 0
    if "folds" in result:
        lines.append("Every image was tested by a model that never saw it; copies and groups lie in one fold.")
    elif reads:
        lines.append(
            "The test images were read once, after all choices were made."
            if reads == 1
            else f"The test images were read {reads} times: choices that were made by them count as training."
        )
    elif result and "curve" not in result:
        lines.append("The test images were not read yet.")
    if found.made:
        data = found.made.dataset
        if (
            "findings" in data
            and not splits_share_images(found.split_record(), data)
            and not found.experiment.data.stream
        ):
            lines.append("No two splits hold copies of one image: all were compared, byte for byte.")
        lines.append(f"Images, labels and splits have the fingerprint {data['fingerprint']}; others are refused.")
        lines.append("The weights' checksum is kept beside them, and checked whenever they are loaded.")
    epochs = [row["epoch"] for row in found.history]
    if epochs and epochs == list(range(1, len(epochs) + 1)):
        lines.append(f"The journal has each of the {len(epochs)} epochs once, however often the run was interrupted.")
    return section("What was proven", items(lines)) if lines else ""


def splits_share_images(split_record: dict[str, Any], dataset: dict[str, Any]) -> bool:
    """Return whether one image was found in two splits.

    split_record: split.json. Older runs have no kinds of findings in it: there the wording in `dataset`, which is
    Dataset.summary(), decides.
    """
    if "findings" in split_record:
        return any(finding["kind"] == "duplicates_across" for finding in split_record["findings"])
    return any("too, byte for byte" in finding for finding in dataset.get("findings") or ())


def _again(found: _Found) -> str:
    folder, versions, kind = found.folder, found.result.get("versions", {}), found.result.get("kind", "train")
    several = kind in ("crossval", "curve")
    lines = [f"python jobs/{kind if several else 'train'}.py --experiment {folder / 'experiment.yaml'}"]
    if not found.result:
        lines.append(f"python jobs/{'tune' if (folder / REQUESTED_EXPERIMENT).is_file() else 'train'}.py --resume {folder}")
    if not several:
        lines += [f"python jobs/evaluate.py {folder}", f"python jobs/predict.py {folder} picture.jpg"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    note = f'<p class="faint">seed {found.experiment.seed}; {escape(told)}</p>'
    return section("Again", f"<pre>{escape(chr(10).join(lines))}</pre>{note}")
