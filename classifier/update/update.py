"""The update of a model: it is trained on, beside a baseline on the memory alone; the better one is judged and kept."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.compress.judge import compare_answers
from classifier.compress.train_step import has_begun, read_targets, train_step
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.evaluation.test_split import count_test_read
from classifier.runs.folder import read_history
from classifier.runtime.distributed import pick_device
from classifier.training.distillation import Teacher
from classifier.training.loop import Epoch, StepProgress
from classifier.training.state import build_model
from classifier.update import document as documents
from classifier.update.compose import select_memory, write_memory
from classifier.update.document import NAMES, Candidate, Name, Outcome, UpdateDocument
from classifier.update.grow_head import grow_head
from classifier.update.judge import compare_old_and_new, find_hits, judge
from classifier.update.plan import has_teacher, plan_memory_alone, plan_update

ORIGINAL, STEPS = "original", "steps"


class StoppedError(Exception):
    """The user has stopped the update, which can be resumed."""


@dataclass(eq=False)
class Update:
    """An update in a run folder. config, dataset: the composed one, with the statistics of the model's.

    on_epoch, on_step: told of each epoch, and of how many there are, and of each step of a training. should_stop:
    whether the user wants it to stop, asked at every step. begin_phase: told of what begins.
    """

    folder: Path
    document: UpdateDocument
    config: DataConfig
    dataset: Dataset
    begin_phase: Callable[[str], None]
    on_step: Callable[[StepProgress], None]
    on_epoch: Callable[[Epoch, int], None]
    should_stop: Callable[[], bool]

    def run(self) -> Outcome:
        """Train, compare and judge. The bundle of a promoted model is then the run's.

        StoppedError if the user has stopped it.
        """
        for name in NAMES if self.document["baseline"] else NAMES[:1]:
            if not self._is_judged(name):
                self._train(name)
                self._add(name)
        chosen = self._choose()
        candidate = next(one for one in self.document["candidates"] if one["name"] == chosen)
        outcome = judge(candidate, self.document["max_loss"])
        if outcome["promoted"]:
            self._promote(chosen)
        if self.document["memory"]:
            write_memory(self.dataset, self.document["memory"], self.folder)
        self.document["outcome"] = outcome
        documents.write(self.folder, self.document)
        return outcome

    @cached_property
    def original(self) -> LoadedBundle:
        """The model before the update."""
        return bundles.load(self.folder / ORIGINAL, pick_device("auto"))

    def _train(self, name: Name) -> None:
        """Train a step to its end, from where it was."""
        self.begin_phase("updating the model" if name == "replay" else "training on the memory alone, to compare")
        folder, about = self.folder / STEPS / name, self.original.bundle
        if name == "replay":
            experiment, dataset = self._plan, self.dataset
            teacher = self._teacher if has_teacher(experiment) else None
            weights = None if has_begun(folder) else self._grow(experiment)
        else:
            dataset, teacher, weights = select_memory(self.dataset, self.document["memory"]), None, None
            steps, images = self._plan.train.epochs * len(self.dataset.train), len(dataset.train)
            experiment = plan_memory_alone(about, self.config, steps=steps, images=images)
        is_done = train_step(
            folder,
            experiment,
            dataset,
            teacher=teacher,
            weights=weights,
            targets=read_targets(about),
            should_stop=self.should_stop,
            on_step=self.on_step,
            on_epoch=self.on_epoch,
        )
        if not is_done:
            raise StoppedError

    @cached_property
    def _plan(self) -> Experiment:
        original, images = bundles.find(self.folder / ORIGINAL), len(self.dataset.train)
        return plan_update(self.original.bundle, self.config, original, self.document, images)

    @property
    def _teacher(self) -> Teacher:
        names = self.dataset.class_names
        classes = [names.index(name) for name in self.original.bundle.class_names]
        return Teacher([(self.original.model, self.original.scorer())], classes)

    def _grow(self, experiment: Experiment) -> dict[str, Tensor]:
        """Return the weights that the update begins with."""
        known, names = self.original.bundle.class_names, self.dataset.class_names
        return grow_head(self.original.model.state_dict(), known, build_model(experiment, self.dataset), names)

    def _add(self, name: Name) -> None:
        """Compare a finished training with the model before, on the test images, and add it to the document."""
        folder = self.folder / STEPS / name
        count_test_read(folder, "update")
        names, test = self.dataset.class_names, self.dataset.test
        after_N = find_hits(bundles.load(folder, self.original.device), test, names)
        old, new, classes = compare_old_and_new(self._test_hits, after_N, test, names)
        validation = bundles.read(folder).scores["validation"]
        candidate: Candidate = {
            "name": name,
            "seconds": sum(row["seconds"] for row in read_history(folder)),
            "old": old,
            "new": new,
            "validation": validation["accuracy"] if validation else None,
            "classes": classes,
        }
        self.document["candidates"].append(candidate)
        documents.write(self.folder, self.document)

    def _is_judged(self, name: Name) -> bool:
        return any(candidate["name"] == name for candidate in self.document["candidates"])

    @cached_property
    def _test_hits(self) -> np.ndarray:
        """Whether the model before is right, of each test image."""
        return find_hits(self.original, self.dataset.test, self.dataset.class_names)

    def _validation_hits(self, name: Name) -> np.ndarray:
        loaded = bundles.load(self.folder / STEPS / name, self.original.device)
        return find_hits(loaded, self.dataset.validation, self.dataset.class_names)

    def _choose(self) -> Name:
        """Return the update, or, where it is better on the validation images by its interval, the memory alone."""
        if not self._is_judged("memory-alone") or not len(self.dataset.validation):
            return "replay"
        gain = compare_answers(self._validation_hits("memory-alone"), self._validation_hits("replay"))
        return "memory-alone" if gain.low > 0 else "replay"

    def _promote(self, name: Name) -> None:
        """Make a step's bundle that of the run."""
        target, source = self.folder / "bundle", bundles.find(self.folder / STEPS / name)
        if not target.exists():
            part = target.with_name(".bundle.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source, part)
            part.replace(target)
