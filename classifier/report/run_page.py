"""report.html and model_card.md: how good a run's model is, how reliable and where it fails, from saved results.

One self-contained page. It has a section for each kind of file in the run folder, so that one code serves a training,
a search, a cross-validation, a learning curve, and a run that is still in progress.
"""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle
from classifier.config.files import read_experiment
from classifier.errors import RunError
from classifier.report import html, model_card, model_sections, sentences, study_sections
from classifier.report.html import bullet_list, section
from classifier.runs.folder import (
    HARD_EXAMPLES,
    PREDICTIONS,
    REQUESTED_EXPERIMENT,
    ROBUSTNESS,
    SCORES,
    read_history,
    read_result,
)

NAME, CARD = "report.html", "model_card.md"
# Class names in the section on the data.
MAX_CLASS_NAMES = 60
SUBJECTS = {"crossval": "cross-validation on", "curve": "learning curve for"}


def write(folder: str | Path, *, refresh: float | None = None) -> Path:
    """Write the page of a run or search folder, and its model card. RunError if it is not a run folder.

    refresh: seconds after which a browser reloads the page, while the run is in progress.
    """
    folder = Path(folder)
    if not (folder / "experiment.yaml").is_file():
        raise RunError(f"{folder} is not a run folder (no experiment.yaml): give OUT/NAME of a training or a search")
    run = _RunFiles(folder)
    if run.bundle is not None:
        model_card.write(folder / CARD, run.bundle, run.result, run.split)
    return html.write(folder / NAME, f"Report of {folder.name}", _sections(run), refresh=refresh)


class _RunFiles:
    """The results saved in a run folder. `split`: the split that the scores are of, or ""."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, read_history(folder)
        self.result = read_result(folder) if (folder / "result.json").exists() else {}
        self.experiment = read_experiment(folder / "experiment.yaml")
        try:
            self.bundle: Bundle | None = bundles.read(folder)
        except RunError:
            self.bundle = None
        scores = self.bundle.scores if self.bundle else {}
        self.split = next((split for split in ("test", "validation") if "intervals" in (scores.get(split) or {})), "")
        self.scores: dict[str, Any] = scores[self.split] if self.split else {}
        if (folder / SCORES).is_file():  # of a cross-validation, whose images are all held out once
            self.scores, self.split = json.loads((folder / SCORES).read_text()), "test"
        self.dataset: dict[str, Any] = self.bundle.dataset if self.bundle else self.result.get("dataset") or {}

    def predictions(self) -> tuple[Tensor, Tensor] | None:
        """Return probabilities_NK and labels_N of the split; None if they were not saved."""
        import pyarrow.parquet as pq

        path = self.folder / PREDICTIONS.get(self.split, "none")
        if not path.is_file():
            return None
        table = pq.read_table(path, columns=["label", "probabilities"])
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        probabilities_NK = torch.from_numpy(flat.reshape(len(table), -1).copy())
        return probabilities_NK, torch.from_numpy(table["label"].to_numpy().copy())

    def split_record(self) -> dict[str, Any]:
        """Return split.json; empty if there is none."""
        path = self.folder / "split.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def hard_examples(self) -> list[dict[str, Any]]:
        """Return the rows of the split's hard examples; empty if there are none."""
        import pyarrow.parquet as pq

        path = self.folder / HARD_EXAMPLES.get(self.split, "none")
        return pq.read_table(path).to_pylist() if path.is_file() else []


def _sections(run: _RunFiles) -> Iterator[str]:
    yield _render_summary(run)
    yield _render_data(run)
    if run.history:
        yield model_sections.render_training(run.history)
    if "folds" in run.result:
        yield study_sections.render_folds(run.result["folds"])
    if "curve" in run.result:
        yield study_sections.render_learning_curve(run.result["curve"])
    if run.scores:
        yield model_sections.render_confusion(run.scores)
        yield model_sections.render_classes(run.scores)
    predictions = run.predictions()
    if predictions is not None:
        yield model_sections.render_calibration(run.bundle, *predictions, run.split)
    hard_examples = run.hard_examples()
    if hard_examples:
        yield model_sections.render_hard_examples(hard_examples, run.split)
    if (run.folder / ROBUSTNESS).is_file():
        yield study_sections.render_robustness(json.loads((run.folder / ROBUSTNESS).read_text()))
    if "trials" in run.result:
        yield study_sections.render_search(run.result)
    yield _render_checks(run)
    yield _render_commands(run)


def _render_summary(run: _RunFiles) -> str:
    bundle, result = run.bundle, run.result
    name = run.dataset.get("name", run.experiment.data.path)
    subject = SUBJECTS.get(result.get("kind", ""), "classifier for")
    parts = [f"<h1>{escape(run.folder.name)}: {subject} {escape(str(name))}</h1>"]
    if not result:
        parts.append('<p class="warning">This run is in progress; this page shows its latest saved state.</p>')
    elif result["status"] != "finished":
        parts.append(f'<p class="warning">This run did not finish (status: {escape(result["status"])}).</p>')
    if run.scores:
        parts.append(f'<p class="big">{escape(sentences.summarize(run.scores, is_test=run.split == "test"))}</p>')
        parts.append(bullet_list(sentences.describe_scores(run.scores)))
    elif "curve" in result:
        parts.append(bullet_list(result["curve"]["says"]))
    elif bundle is None:
        parts.append('<p class="big">No model has been saved yet.</p>')
    if bundle is not None:
        megabytes = (bundles.find(run.folder) / bundles.WEIGHTS).stat().st_size / 1e6
        model = f"{bundle.model['name']}, input {bundle.size} x {bundle.size} pixels, {megabytes:.1f} MB of weights"
        parts.append(f'<p class="faint">{escape(model)}.</p>')
    return "".join(parts)


def _render_data(run: _RunFiles) -> str:
    dataset = run.dataset
    if not dataset:
        return section("Data", f"<p>{escape(run.experiment.data.path)}</p>")
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    names = dataset["class_names"]
    classes = ", ".join(names[:MAX_CLASS_NAMES]) + (", ..." if len(names) > MAX_CLASS_NAMES else "")
    content = f"<p>{escape(dataset['name'])}: {counts} images of {len(names)} classes: {escape(classes)}.</p>"
    findings = dataset.get("findings") or []
    content += bullet_list(findings) if findings else '<p class="faint">No problems found.</p>'
    return section("Data", content, "Checked while reading the images; classifier audit checks more.")


def _render_checks(run: _RunFiles) -> str:
    lines, result = [], run.result
    evaluations = result.get("test_reads") or 0
    if "folds" in result:
        lines.append("Each image was predicted by a model that was not trained on its fold.")
        lines.append("Identical images, and images of one group, are in the same fold.")
    elif evaluations == 1:
        lines.append("The test split was evaluated once.")
    elif evaluations:
        lines.append(
            f"The test split was evaluated {evaluations} times: test scores that influenced a choice are optimistic."
        )
    elif result and "curve" not in result:
        lines.append("The test split has not been evaluated yet.")
    if run.bundle:
        dataset = run.bundle.dataset
        is_compared = "findings" in dataset and not run.experiment.data.stream
        if is_compared and not splits_share_images(run.split_record(), dataset):
            lines.append("No image is in two splits (compared byte for byte).")
        lines.append(f"Images, labels and splits have the fingerprint {dataset['fingerprint']}; others are refused.")
        lines.append("The weights are verified against their checksum each time they are loaded.")
    epochs = [row["epoch"] for row in run.history]
    if epochs and epochs == list(range(1, len(epochs) + 1)):
        lines.append(f"The training history contains each of its {len(epochs)} epochs exactly once.")
    return section("Integrity checks", bullet_list(lines)) if lines else ""


def splits_share_images(split_record: dict[str, Any], dataset: dict[str, Any]) -> bool:
    """Return whether one image was found in two splits.

    split_record: split.json. Older runs have no kinds of findings in it: there the wording in `dataset`, which is
    Dataset.summary(), decides.
    """
    if "findings" in split_record:
        return any(finding["kind"] == "duplicates_across" for finding in split_record["findings"])
    return any("too, byte for byte" in finding for finding in dataset.get("findings") or ())


def _render_commands(run: _RunFiles) -> str:
    folder, versions, kind = run.folder, run.result.get("versions", {}), run.result.get("kind", "train")
    is_study = kind in SUBJECTS
    lines = [f"classifier {kind if is_study else 'train'} --experiment {folder / 'experiment.yaml'}"]
    if not run.result:
        verb = "tune" if (folder / REQUESTED_EXPERIMENT).is_file() else "train"
        lines.append(f"classifier {verb} --resume {folder}")
    if not is_study:
        lines += [f"classifier evaluate {folder}", f"classifier predict {folder} image.jpg"]
    versions_text = ", ".join(f"{name} {version}" for name, version in versions.items())
    note = f'<p class="faint">seed {run.experiment.seed}; {escape(versions_text)}</p>'
    return section("Commands", f"<pre>{escape(chr(10).join(lines))}</pre>{note}")
