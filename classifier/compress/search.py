"""The search for the fastest model that loses little: steps are tried in turn, and each is measured and judged."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.measurements import ORIGINAL, STEPS, VIEWS, Measurements
from classifier.compress.prune import Pruned, prune, prune_to_speed
from classifier.compress.table import TRAININGS, Row, Step
from classifier.compress.timing import measure_milliseconds
from classifier.compress.train_step import (
    has_begun,
    make_teacher,
    plan_finetuning,
    plan_student,
    read_targets,
    train_step,
)
from classifier.compress.unlabelled import FILE as UNLABELLED
from classifier.compress.unlabelled import add_unlabelled
from classifier.config.experiment import Experiment
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.export.formats import write_graph
from classifier.export.graph import Graph
from classifier.models import MODELS, build
from classifier.training.distillation import Teacher
from classifier.training.loop import Epoch, StepProgress

TEACHERS = "teachers"
# How many times faster than before pruning the pruned models are to be, in turn.
SPEEDS = (1.5, 2.0, 3.0, 4.0)
# A student is trained if it is so many times faster; at most so many are, of a training of so many images or more.
MIN_STUDENT_SPEED, MAX_STUDENTS, MIN_STUDENT_IMAGES = 1.25, 2, 2000


class StoppedError(Exception):
    """The user has stopped the search, which can be resumed."""


@dataclass(eq=False)
class Search:
    """A compression in a run folder.

    on_step, on_epoch: told of each step of a training, and of each epoch and of how many there are. should_stop:
    whether the user wants it to stop, asked at every step of a training; is_late: whether its minutes are over.
    """

    models: Measurements
    on_step: Callable[[StepProgress], None]
    on_epoch: Callable[[Epoch, int], None]
    should_stop: Callable[[], bool]
    is_late: Callable[[], bool]

    def run(self) -> Row:
        """Try the steps that are asked for; return the row of the fastest model that is accepted.

        StoppedError if the user has stopped it.
        """
        steps, base = self._list_steps(), ORIGINAL
        self.models.add(ORIGINAL)
        if "views" in steps and self.original.bundle.test_flip:
            self._make_single_view()
            if self.models.add(VIEWS)["accepted"]:
                base = VIEWS
        if "int8" in steps:
            row = self.models.add_int8(base)
            if row is not None and not row["accepted"] and "qat" in steps:
                self._retrain_for_int8(base)
        for name in self._train_faster(base, steps):
            if "int8" in steps and self.models.find_row(name)["accepted"]:
                self.models.add_int8(name)
        return self.models.find_fastest()

    @cached_property
    def original(self) -> LoadedBundle:
        return bundles.load(self.models.folder / ORIGINAL)

    def _list_steps(self) -> Sequence[Step]:
        """Return the steps that are asked for; no trainings, where none of the images were held out for validation, or
        where they have several labels."""
        steps = self.models.document["steps"]
        trainings = [step for step in steps if step in TRAININGS]
        has_labels = self.original.bundle.task == "multilabel"
        if not trainings or (len(self.models.dataset.validation) and not has_labels):
            return steps
        why = (
            "a teacher shows one class an image, and these have several labels"
            if has_labels
            else "what is trained cannot be judged by the folds of a linear probe; train the model with "
            "--data.validation 0.2 to try it"
        )
        self.models.refuse(f"{', '.join(trainings)}: {why}")
        return [step for step in steps if step not in trainings]

    def _train_faster(self, base: str, steps: Sequence[Step]) -> Iterator[str]:
        """Train pruned models and students; yield the names of those that are finished, and judged in fp32."""
        if "prune" in steps:
            for speed in SPEEDS:
                name = f"prune-{speed:g}"
                if not self._prune(name, base, speed):
                    break
                yield name
                if not self.models.find_row(name)["accepted"]:  # a smaller one loses more
                    break
        if "distill" in steps:
            for student in self._choose_students(base):
                name = f"distill-{re.sub(r'[^A-Za-z0-9]+', '-', student)}"
                if self._distill(name, student, base):
                    yield name

    def _make_single_view(self) -> None:
        """Save the original without the average over mirrored images, which takes twice the time."""
        if (self.models.folder / VIEWS).exists():
            return
        from classifier.evaluation.calibrate import calibrate_bundle, save_with_ood_detector

        bundle = self.original.bundle
        experiment = Experiment.from_dict(bundle.experiment).override("augment.test_flip", False).as_dict()
        single = LoadedBundle(dataclasses.replace(bundle, test_flip=False, experiment=experiment), self.original.model)
        single, probabilities_NK = calibrate_bundle(single, self.models.dataset, **read_targets(bundle))
        save_with_ood_detector(single, self.models.dataset, self.models.folder / VIEWS, probabilities_NK)

    def _prune(self, name: str, base: str, speed: float) -> bool:
        if not self._may_train(name):
            return False
        about = self.original.bundle
        experiment, weights = None, None
        if not self.models.is_measured(name) and not has_begun(self.models.folder / STEPS / name):
            self.models.begin_phase(f"pruning to {speed:g} times the speed")
            try:
                pruned = self._prune_to(speed, base)
            except ModelError as error:
                self.models.refuse(f"{name}: {error}")
                return False
            experiment = plan_finetuning(
                about, pruned.config, test_flip=self._test_flip(base), epochs=self.models.document.get("epochs")
            )
            weights = pruned.weights
        return self._train(name, experiment, weights)

    def _prune_to(self, speed: float, base: str) -> Pruned:
        about, model = self.original.bundle, self.original.model
        detector = bundles.load_ood_detector(self.models.folder / ORIGINAL)
        layers = detector.layers if detector else []
        before = self._write_for_timing(model, "before", base, layers)

        def measure(pruned: nn.Module) -> float:
            engines = {"before": before, "after": self._write_for_timing(pruned, "after", base, layers)}
            timings = measure_milliseconds(engines, self.models.images_NCHW, 1)
            return timings["before"] / timings["after"]

        config = ModelConfig(**about.model)
        return prune_to_speed(lambda ratio: prune(model, config, ratio=ratio, **about.shape), measure, speed)

    def _distill(self, name: str, student: str, base: str) -> bool:
        if not self._may_train(name):
            return False
        flip, epochs = self._test_flip(base), self.models.document.get("epochs")
        return self._train(name, plan_student(self.original.bundle, student, test_flip=flip, epochs=epochs), None)

    def _retrain_for_int8(self, base: str) -> None:
        if self._may_train("qat"):
            flip, epochs = self._test_flip(base), self.models.document.get("epochs")
            config = ModelConfig(**self.original.bundle.model)
            experiment = plan_finetuning(self.original.bundle, config, test_flip=flip, epochs=epochs)
            experiment = experiment.override("train.int8", True)
            if self._train("qat", experiment, self.original.model.state_dict()):
                self.models.add_int8("qat")

    def _choose_students(self, base: str) -> list[str]:
        """Return the networks to train: those asked for, else of the project's own the slowest that are fast enough."""
        asked, about = self.models.document["students"], self.original.bundle
        if (chosen := self.models.document.get("chosen")) is not None:
            return chosen
        if not asked and len(self.models.dataset.train) < MIN_STUDENT_IMAGES:
            self.models.refuse(
                f"distill: {len(self.models.dataset.train):,} images are too few to train a network from scratch"
            )
            return []
        before = self._write_for_timing(self.original.model, "before", base)
        speeds = {}
        for name in asked or [name for name in MODELS if name != about.model["name"]]:
            config = dataclasses.replace(ModelConfig(), name=name)
            student = build(config, **about.shape, weights=False).eval()
            engines = {"before": before, "after": self._write_for_timing(student, "after", base)}
            timings = measure_milliseconds(engines, self.models.images_NCHW, 1)
            speeds[name] = timings["before"] / timings["after"]
        fast = [name for name, speed in speeds.items() if speed >= MIN_STUDENT_SPEED]
        for name in set(asked) - set(fast):
            self.models.refuse(
                f"distill {name}: {speeds[name]:.2f} times as fast as the model on this machine: too slow"
            )
        chosen = fast if asked else sorted(fast, key=speeds.__getitem__)[:MAX_STUDENTS]
        self.models.document["chosen"] = chosen
        return chosen

    def _may_train(self, name: str) -> bool:
        if self.should_stop():
            raise StoppedError
        self.models.forget_refusal(name)
        if self.is_late() and not self.models.is_measured(name):
            self.models.refuse(f"{name}: no time is left for it")
            return False
        return True

    def _train(self, name: str, experiment: Experiment | None, weights: dict[str, torch.Tensor] | None) -> bool:
        """Train a step to its end and judge its model; whether it got there."""
        if not self.models.is_measured(name):
            self.models.begin_phase(f"training {name}")
            extra = (self.models.folder / UNLABELLED).is_file()
            is_done = train_step(
                self.models.folder / STEPS / name,
                experiment,
                self.models.dataset,
                teacher=self._teacher,
                unlabelled=add_unlabelled(self.models.dataset, self.models.folder) if extra else None,
                weights=weights,
                targets=read_targets(self.original.bundle),
                should_stop=lambda: self.should_stop() or self.is_late(),
                on_step=self.on_step,
                on_epoch=self.on_epoch,
            )
            if self.should_stop():
                raise StoppedError
            if not is_done:
                self.models.refuse(f"{name}: it was stopped before its training was over")
                return False
        self.models.add(name)
        return True

    @cached_property
    def _teacher(self) -> Teacher:
        about = self.original.bundle
        named = [self.models.folder / TEACHERS / str(n) for n in range(self.models.document["teachers"])]
        return make_teacher(named or [self.models.folder / ORIGINAL], about.class_names, about.channels, "auto")

    def _test_flip(self, base: str) -> bool:
        return self.original.bundle.test_flip and base == ORIGINAL

    def _write_for_timing(self, model: nn.Module, name: str, base: str, layers: Sequence[str] = ()) -> GraphEngine:
        """Write a model's graph with the statistics of these layers, and load it. Its answers do not matter."""
        folder = self.models.folder / "graphs"
        folder.mkdir(exist_ok=True)
        scorer = dataclasses.replace(
            self.original.scorer(), precision="fp32", channels_last=False, test_flip=self._test_flip(base)
        )
        example_NCHW = torch.from_numpy(self.models.images_NCHW[[0, -1]])
        write_graph(Graph(model, scorer, layers), "onnx", folder, example_NCHW, self.original.bundle.class_names)
        path = (folder / "model.onnx").replace(folder / f"{name}.onnx")
        return GraphEngine(path, self.models.document["threads"])


def copy_original(path: Path, folder: Path) -> None:
    """Copy a bundle without its exports, so that the given run stays as it is. RunError if it cannot be read."""
    loaded = bundles.load(path)
    bundles.save(*loaded, folder, bundles.load_ood_detector(path), bundles.load_reference(path))


def remove_scratch(folder: Path) -> None:
    """Remove graphs that only the search needed."""
    shutil.rmtree(folder / "graphs", ignore_errors=True)
