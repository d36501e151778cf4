"""The models of a compression, each exported, timed and judged in turn: the rows of compress.json."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from classifier.bundle import bundle as bundles
from classifier.bundle.engine import Engine
from classifier.bundle.exported import is_exported
from classifier.compress import table
from classifier.compress.fold_judge import FoldJudge
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.judge import Assessment, Judge, SplitJudge, compare_answers
from classifier.compress.quantize import Scheme, choose_images
from classifier.compress.scheme_search import find_scheme
from classifier.compress.table import CompressDocument, Row
from classifier.compress.timing import BATCHES, measure_milliseconds
from classifier.data.dataset import Dataset
from classifier.errors import RunError
from classifier.evaluation.calibrate import is_validated_by_folds
from classifier.export.folder import GateImages, export_bundle
from classifier.inference.scorer import gather_targets
from classifier.metrics.decisions import Calibration
from classifier.metrics.intervals import wilson

ORIGINAL, VIEWS, STEPS = "original", "views", "steps"


@dataclass(eq=False)
class Measurements:
    """Models in a run folder: the original, its single view, and those of the trainings in steps/.

    say: shows a line; begin_phase: what is done from now on.
    """

    folder: Path
    document: CompressDocument
    dataset: Dataset
    say: Callable[[str], None]
    begin_phase: Callable[[str], None]
    engines: dict[str, GraphEngine] = field(default_factory=dict)
    """Of the steps in fp32."""

    def is_measured(self, step: str, precision: str = "fp32") -> bool:
        """Whether the table has a row of it."""
        return any((row["step"], row["precision"]) == (step, precision) for row in self.document["rows"])

    def find_row(self, step: str, precision: str = "fp32") -> Row:
        """Return the row of a step that is measured."""
        return next(row for row in self.document["rows"] if (row["step"], row["precision"]) == (step, precision))

    def find_fastest(self) -> Row:
        """Return the accepted row with the fewest milliseconds per image."""
        return min((row for row in self.document["rows"] if row["accepted"]), key=lambda row: row["milliseconds_1"])

    def bundle_folder(self, step: str) -> Path:
        """Return the bundle of a step."""
        return bundles.find(self.folder / step if step in (ORIGINAL, VIEWS) else self.folder / STEPS / step)

    def graph(self, step: str, precision: str = "fp32") -> Path:
        """Return the file of a step's graph."""
        if precision == "fp32":
            return self.bundle_folder(step) / "onnx" / "model.onnx"
        return self.folder / "graphs" / f"{step}-{precision}.onnx"

    def load_int8_answers(self, step: str) -> np.ndarray:
        """Return probabilities_NK of the images that models are judged on, by a step's graph in int8."""
        return np.load(self._answers(step))

    @cached_property
    def judge(self) -> Judge:
        """What models are judged by."""
        folder = self.bundle_folder(ORIGINAL)
        if is_validated_by_folds(bundles.read(folder)):
            graphs, threads = self.folder / "graphs", self.document["threads"]
            return FoldJudge(self.bundle_folder, ORIGINAL, self.dataset, graphs, threads)
        return SplitJudge(self.dataset.validation)

    @cached_property
    def images_NCHW(self) -> np.ndarray:  # noqa: N802 - a shape
        """Images to measure the time on."""
        return choose_images(self.judge.split.images_NCHW, max(BATCHES))

    def add(self, step: str) -> Row:
        """Export a step's bundle in fp32, and add its row. RunError if it cannot be exported."""
        folder = self.bundle_folder(step)
        if not is_exported(folder, "onnx"):
            self.begin_phase(f"exporting {step}")
            export_bundle(folder, "onnx", GateImages.select(self.dataset))
        self.engines[step] = GraphEngine(self.graph(step), self.document["threads"])
        if self.is_measured(step):
            return self.find_row(step)
        return self._measure(step, self.engines[step], self._judge(step, self.engines[step]))

    def add_int8(self, step: str) -> Row | None:
        """Quantise a step's graph, and add its row; None if it is slower than before, or cannot be quantised."""
        if self.is_measured(step, "int8"):
            if self._answers(step).exists():
                return self.find_row(step, "int8")
            self.document["rows"].remove(self.find_row(step, "int8"))  # of a version that kept no answers
        self.begin_phase(f"quantising {step}")
        target, threads = self.graph(step, "int8"), self.document["threads"]
        target.parent.mkdir(exist_ok=True)
        try:
            scheme, assessment = find_scheme(
                self.graph(step),
                target,
                self.engines[step],
                self.dataset.train.images_NCHW,
                threads=threads,
                limit=self.document["max_loss"] / 100,
                judge=lambda engine, scheme: self._judge(step, engine, scheme),
            )
        except RunError as error:
            self.refuse(f"{step} in int8 is refused: {error}")
            return None
        np.save(self._answers(step), assessment.probabilities_NK)
        return self._measure(step, GraphEngine(target, threads), assessment, str(scheme))

    def refuse(self, line: str) -> None:
        """Say why a step is not used, and write it down."""
        if line not in self.document["refused"]:
            self.document["refused"].append(line)
            table.write(self.folder, self.document)
        self.say(line)

    def forget_refusal(self, step: str) -> None:
        """Forget what was said of a step that is tried again."""
        self.document["refused"] = [line for line in self.document["refused"] if not line.startswith(f"{step}:")]

    def _measure(self, step: str, engine: GraphEngine, assessment: Assessment, scheme: str | None = None) -> Row:
        """Measure a model, and add its row. scheme: of int8.

        Both models are measured in turns, and what counts is their ratio: the load of the machine changes in hours.
        """
        precision = "fp32" if scheme is None else "int8"
        self.begin_phase(f"measuring {step} in {precision}")
        rows, is_first = self.document["rows"], not self.document["rows"]
        loss, right_N = assessment.loss, self._is_right(assessment.probabilities_NK)
        hits, count = int(right_N.sum()), len(right_N)
        timings: dict[int, float] = {}
        for batch in BATCHES:
            both = measure_milliseconds({"before": self.engines[ORIGINAL], "after": engine}, self.images_NCHW, batch)
            timings[batch] = both["before"]
            if not is_first:
                first = rows[0]["milliseconds_1"] if batch == 1 else rows[0]["milliseconds_32"]
                timings[batch] = first * both["after"] / both["before"]
        row: Row = {
            "name": f"{step} {precision}",
            "step": step,
            "precision": precision,
            "scheme": scheme,
            "megabytes": self.graph(step, precision).stat().st_size / 1e6,
            "milliseconds_1": timings[1],
            "milliseconds_32": timings[32],
            "images_per_second": 32_000 / timings[32],
            "accuracy": hits / count,
            "accuracy_interval": list(wilson(hits, count)),
            "loss": loss.mean,
            "loss_interval": [loss.low, loss.high],
            "accepted": is_first or loss.is_within(self.document["max_loss"] / 100),
        }
        rows.append(row)
        table.write(self.folder, self.document)
        self.say(table.describe(row, rows[0], self.document["max_loss"]))
        return row

    def _judge(self, step: str, engine: Engine, scheme: Scheme | None = None) -> Assessment:
        probabilities_NK = self.judge.predict(step, engine, scheme)
        return Assessment(compare_answers(self._right_before, self._is_right(probabilities_NK)), probabilities_NK)

    @cached_property
    def _right_before(self) -> np.ndarray:
        return self._is_right(self.judge.predict(ORIGINAL, self.engines[ORIGINAL], None))

    def _is_right(self, probabilities_NK: np.ndarray) -> np.ndarray:
        targets = gather_targets(self.judge.split.labels_N, self.dataset.label_sets_MK).numpy()
        if self.dataset.task != "multilabel":
            return probabilities_NK.argmax(1) == targets
        calibration = Calibration.from_dict(bundles.read(self.bundle_folder(ORIGINAL)).calibration or {"images": 0})
        return (calibration.decide_labels(probabilities_NK) == targets).all(1)

    def _answers(self, step: str) -> Path:
        return self.graph(step, "int8").with_suffix(".npy")
