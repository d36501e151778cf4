"""A training of a compression goes on where it was stopped, and ends as an unbroken one."""

import dataclasses

import torch
from safetensors.torch import load_file

from classifier.compress.prune import prune
from classifier.compress.train_step import make_teacher, plan_finetuning, plan_student, read_targets, train_step
from classifier.compress.unlabelled import add_unlabelled, save_unlabelled
from classifier.config.experiment import Experiment
from classifier.config.sections import ModelConfig


def run_step(folder, trained, experiment, weights=None, *, stop_after=None, **more) -> bool:
    steps = iter(range(10**6))

    def should_stop() -> bool:
        return stop_after is not None and next(steps) >= stop_after

    teacher = make_teacher([trained.folder], trained.dataset.class_names, 3, "cpu")
    return train_step(
        folder,
        experiment,
        trained.dataset,
        teacher=teacher,
        weights=weights,
        should_stop=should_stop,
        on_epoch=lambda *_: None,
        **more,
    )


def test_a_resumed_finetuning_of_a_pruned_model_equals_an_unbroken_one(trained, tmp_path):
    bundle, model = trained.loaded
    pruned = prune(model, ModelConfig(**bundle.model), classes=3, channels=3, size=bundle.size, ratio=0.4)
    experiment = plan_finetuning(bundle, pruned.config, test_flip=True, epochs=2)
    assert run_step(tmp_path / "unbroken", trained, experiment, pruned.weights)
    assert not run_step(tmp_path / "resumed", trained, experiment, pruned.weights, stop_after=3)
    assert run_step(tmp_path / "resumed", trained, None)
    ends = [load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("unbroken", "resumed")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    start = pruned.weights["head.weight"]
    assert not torch.equal(ends[0]["head.weight"], start)


def test_a_student_learns_from_images_without_labels(trained, tmp_path, draw):
    bundle = trained.loaded.bundle
    more = draw(tmp_path / "more", {"any": 12}, seed=5)
    teacher = make_teacher([trained.folder], bundle.class_names, 3, "cpu")
    assert save_unlabelled(more, bundle, teacher, Experiment().data, tmp_path) == 12
    extended = add_unlabelled(trained.dataset, tmp_path)
    assert len(extended.train) == len(trained.dataset.train) + 12
    experiment = plan_student(bundle, "cnn", test_flip=False, epochs=1)
    assert run_step(tmp_path / "student", trained, experiment, unlabelled=extended, targets=read_targets(bundle))
    assert (tmp_path / "student" / "result.json").is_file()


def test_a_probe_is_finetuned_by_a_recipe_of_its_own(trained):
    bundle = trained.loaded.bundle
    settings = Experiment.from_dict(bundle.experiment)
    probe = settings.override_all({"model.probe": True, "model.weights": "imagenet", "train.epochs": 1})
    bundle = dataclasses.replace(bundle, experiment=probe.as_dict())
    plan = plan_finetuning(bundle, ModelConfig(**bundle.model), test_flip=False, epochs=None)
    assert (plan.train.epochs, plan.model.probe, plan.loss.distill > 0) == (20, False, True)
