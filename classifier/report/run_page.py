"""report.html and model_card.md: how good a run's model is, how reliable and where it fails, from saved results.

One self-contained page. It has a section for each kind of file in the run folder, so that one code serves a training,
a search, a cross-validation, a learning curve, and a run that is still in progress.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, read_scores
from classifier.bundle.predictions import read_probabilities
from classifier.bundle.test_reads import count_test_reads, describe_test_reads
from classifier.compress import table
from classifier.config.documents import read_json, read_rows
from classifier.config.files import read_experiment
from classifier.data.split_names import explain_no_test
from classifier.errors import RunError
from classifier.evaluation.calibrate import describe_folds
from classifier.report import images, model_card, page, sentences
from classifier.report.page import Block, Bullets, Code, Page, Section, Text
from classifier.report.sections import label_sections, model_sections, study_sections
from classifier.report.sections.column_section import build_columns
from classifier.report.sections.compress_section import build_compression
from classifier.report.sections.unlabelled_section import build_unlabelled
from classifier.report.sections.update_section import build_update
from classifier.runs.folder import (
    HARD_EXAMPLES,
    PREDICTIONS,
    REQUESTED_EXPERIMENT,
    ROBUSTNESS,
    SCORES,
    read_history,
    read_result,
)
from classifier.runs.schema import HardExample, SplitRecord
from classifier.runs.status import RUNNING, read_status
from classifier.text import quote
from classifier.update import document

NAME = "report.html"
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
        model_card.write(folder, run.bundle, count_test_reads(folder), run.split, run.folds_of_split)
    content = Page(_title(run), _build_summary(run), list(_build_sections(run)))
    return page.write(folder / NAME, content, refresh=refresh)


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
        self.by_folds = describe_folds(self.bundle) if self.bundle else ""
        """By which folds its model was validated, if it was."""
        if (folder / SCORES).is_file():  # of a cross-validation, whose images are all held out once
            self.scores, self.split = read_scores(folder / SCORES), "test"
        self.dataset: dict[str, Any] = self.bundle.dataset if self.bundle else self.result.get("dataset") or {}

    @property
    def folds_of_split(self) -> str:
        """By which folds the images of the split were predicted, if they were."""
        return self.by_folds if self.split == "validation" else ""

    def predictions(self) -> tuple[Tensor, Tensor] | None:
        """Return probabilities_NK of the split and labels_N, or targets_NK; None if they were not saved."""
        path = self.folder / PREDICTIONS.get(self.split, "none")
        return read_probabilities(path) if path.is_file() else None

    def split_record(self) -> dict[str, Any]:
        """Return split.json; empty if there is none."""
        path = self.folder / "split.json"
        return dict(read_json(path, SplitRecord)) if path.is_file() else {}

    def hard_examples(self) -> list[HardExample]:
        """Return the rows of the split's hard examples; empty if there are none."""
        path = self.folder / HARD_EXAMPLES.get(self.split, "none")
        return read_rows(path, HardExample) if path.is_file() else []

    def link_image(self, image_id: str) -> str:
        """Return the URL of an image's file, relative to the page; "" if it is not a file of its own."""
        return images.link_to(images.find_image_file(self.experiment.data.path, image_id), self.folder)


def _build_sections(run: _RunFiles) -> Iterator[Section]:
    yield _build_data(run)
    if run.history:
        yield model_sections.build_training(run.history, run.dataset.get("counts") or {}, run.by_folds)
    if run.result.get("unlabelled"):
        yield build_unlabelled(run.result["unlabelled"])
    if "folds" in run.result:
        yield study_sections.build_folds(run.result["folds"])
    if "curve" in run.result:
        yield study_sections.build_learning_curve(run.result["curve"])
    if (run.folder / table.DOCUMENT).is_file():
        yield build_compression(table.read(run.folder))
    if (run.folder / document.DOCUMENT).is_file():
        yield build_update(document.read(run.folder))
    if run.scores:
        if "confusion" in run.scores:
            yield model_sections.build_confusion(run.scores)
        yield from model_sections.build_classes(run.scores)
        if "levels" in run.scores:
            yield model_sections.build_levels(run.scores)
    if run.bundle is not None and run.bundle.columns:
        yield build_columns(run.bundle, run.split, run.by_folds)
    predictions = run.predictions()
    if predictions is not None:
        build_calibration = (label_sections if predictions[1].ndim == 2 else model_sections).build_calibration
        yield build_calibration(run.bundle, *predictions, run.split)
    hard_examples = run.hard_examples()
    if hard_examples:
        yield model_sections.build_hard_examples(hard_examples, run.split, run.folds_of_split, run.link_image)
    if (run.folder / ROBUSTNESS).is_file():
        yield study_sections.build_robustness(study_sections.read_robustness(run.folder / ROBUSTNESS))
    if "trials" in run.result:
        yield study_sections.build_search(run.result)
    yield from _build_checks(run)
    yield _build_commands(run)


def _title(run: _RunFiles) -> str:
    subject = SUBJECTS.get(run.result.get("kind", ""), "classifier for")
    return f"{run.folder.name}: {subject} {run.dataset.get('name', run.experiment.data.path)}"


def _build_summary(run: _RunFiles) -> list[Block]:
    bundle, result = run.bundle, run.result
    blocks: list[Block] = []
    status = read_status(run.folder)
    if status == RUNNING:
        blocks.append(Text("This run is in progress; this page shows its latest saved state.", "warning"))
    elif status != "finished":
        blocks.append(Text(f"This run did not finish (status: {status}).", "warning"))
    if run.scores:
        words = sentences if "confusion" in run.scores else label_sections
        summary = words.summarize(run.scores, is_test=run.split == "test", by_folds=run.folds_of_split)
        blocks.append(Text(summary, "big"))
        blocks.append(Bullets(list(words.describe_scores(run.scores))))
    elif "curve" in result:
        blocks.append(Bullets(result["curve"]["says"]))
    elif bundle is None:
        blocks.append(Text("No model has been saved yet.", "big"))
    elif not bundle.dataset["counts"]["test"]:
        blocks.append(Text(f"Not tested: {explain_no_test(run.experiment.data.test)}.", "big"))
    if bundle is not None:
        megabytes = (bundles.find(run.folder) / bundles.WEIGHTS).stat().st_size / 1e6
        model = f"{bundle.model['name']}, input {bundle.size} x {bundle.size} pixels, {megabytes:.1f} MB of weights."
        blocks.append(Text(model, "faint"))
    return blocks


def _build_data(run: _RunFiles) -> Section:
    dataset = run.dataset
    if not dataset:
        return Section("Data", [Text(run.experiment.data.path)])
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    names = dataset["class_names"]
    classes = ", ".join(names[:MAX_CLASS_NAMES]) + (", ..." if len(names) > MAX_CLASS_NAMES else "")
    validated = f" Validated {run.by_folds}." if run.by_folds else ""
    text = Text(f"{dataset['name']}: {counts} images of {len(names)} classes: {classes}.{validated}")
    findings = dataset.get("findings") or []
    found = Bullets(findings) if findings else Text("No problems found.", "faint")
    return Section("Data", [text, found], "Checked while reading the images; classifier audit checks more.")


def _build_checks(run: _RunFiles) -> Iterator[Section]:
    lines, result = [], run.result
    reads = count_test_reads(run.folder)
    if "folds" in result:
        lines.append("Each image was predicted by a model that was not trained on its fold.")
        lines.append("Identical images, and images of one group, are in the same fold.")
    elif reads or (result and "curve" not in result):
        lines.append(describe_test_reads(reads))
    if run.bundle:
        dataset = run.bundle.dataset
        is_compared = "findings" in dataset and not run.experiment.data.stream
        if is_compared and not splits_share_images(record := run.split_record(), dataset):
            unit = "pixel" if record.get("compared") == "pixels" else "byte"
            lines.append(f"No image is in two splits (compared {unit} for {unit}).")
        lines.append(f"Images, labels and splits have the fingerprint {dataset['fingerprint']}; others are refused.")
        lines.append("The weights are verified against their checksum each time they are loaded.")
    epochs = [row["epoch"] for row in run.history]
    if epochs and epochs == list(range(1, len(epochs) + 1)):
        lines.append(f"The training history contains each of its epochs, {len(epochs)}, exactly once.")
    if lines:
        yield Section("Integrity checks", [Bullets(lines)])


def splits_share_images(split_record: dict[str, Any], dataset: dict[str, Any]) -> bool:
    """Return whether one image was found in two splits.

    split_record: split.json. Older runs have no kinds of findings in it: there the wording in `dataset`, which is
    Dataset.summary(), decides.
    """
    if "findings" in split_record:
        return any(finding["kind"] == "duplicates_across" for finding in split_record["findings"])
    return any("too, byte for byte" in finding for finding in dataset.get("findings") or ())


def _build_commands(run: _RunFiles) -> Section:
    folder, versions, kind = run.folder, run.result.get("versions", {}), run.result.get("kind", "train")
    is_study = kind in SUBJECTS
    lines = [f"classifier {kind if is_study else 'train'} --experiment {quote(folder / 'experiment.yaml')}"]
    if not run.result:
        verb = "tune" if (folder / REQUESTED_EXPERIMENT).is_file() else "train"
        lines.append(f"classifier {verb} --resume {quote(folder)}")
    if not is_study:
        lines += [f"classifier evaluate {quote(folder)}", f"classifier predict {quote(folder)} image.jpg"]
    versions_text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Section("Commands", [Code(lines), Text(f"seed {run.experiment.seed}; {versions_text}", "faint")])
