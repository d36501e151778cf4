"""Train from Python, in this process."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier import data
from classifier.api.missing import CALIBRATION, Missing
from classifier.api.pages import write_pages
from classifier.api.progress import Progress
from classifier.api.run import Run
from classifier.bundle.bundle import LoadedBundle
from classifier.config.auto_recipe import AUTO, choose_recipe
from classifier.config.experiment import Experiment, flatten
from classifier.config.files import read_experiment
from classifier.config.recipes import recipe as get_recipe
from classifier.config.recipes import recipe_for
from classifier.config.trust import check_trusted, trust_models
from classifier.config.trust import trust as allow_imports
from classifier.data.dataset import Dataset
from classifier.data.facts import measure_facts
from classifier.errors import ConfigError, RunError
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
from classifier.profiling.step_time import find_batch_size
from classifier.runs.data_location import check_same_data, find_data
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_failure, record_training, result_fields, save_inputs
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.storage.session_folder import refuse_lost_results
from classifier.training.progress import describe_epoch, describe_run
from classifier.training.resolve import resolve

KIND = "train"


def train(
    path: str | Path | None = None,
    *,
    minutes: float | None = None,
    recipe: str | None = None,
    experiment: Experiment | Mapping[str, Any] | str | Path | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    progress: bool = True,
    trust: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train a classifier on the images at `path` and save it as a run, which is returned.

    path: a folder with a subfolder of images per class, or anything else that `data.path` accepts; without it, the
    experiment's, or the built-in digits. minutes: time limit, `train.minutes`. recipe: a named recipe to start from, or
    auto, which chooses by the number and size of the images; by default the one that fits the data. experiment:
    settings that override the recipe, as a mapping or a YAML file, or a whole Experiment. settings: by dotted name,
    overriding both. name, out: the run's folder is out/name; by default named after the data set, with a number.
    progress: print each epoch, and the time left. trust: the import path of a model of your own that an experiment file
    names; one that you name in `settings` needs no trust.

    ConfigError, DataError or ModelError for a setting, data or a model that cannot be trained; DivergedError if the
    loss is not finite. After Ctrl-C (KeyboardInterrupt) the run is kept as far as it got: go on with `resume`.

    >>> run = classifier.train(photos, name="first", progress=False, **{"train.epochs": 3, "data.batch": 16})
    >>> run.history.num_rows
    3
    """
    allow_imports(*trust)
    trust_models([str(settings.get("model.name", ""))])
    requested = _request_experiment(path, recipe, experiment)
    requested = requested.override_all(settings | ({"train.minutes": minutes} if minutes is not None else {}))
    if requested.workers.count > 1:
        raise ConfigError(
            f"classifier.train trains in this process, so workers.count cannot be {requested.workers.count}: use the "
            "command classifier train, which starts workers"
        )
    check_trusted(requested.model.name)
    refuse_lost_results(out, fix="out to a folder outside it, such as /shared/runs")
    display = Progress(progress)
    dataset = data.load(requested.data, display.progress_bar)
    resolved = _fix_batch_size(resolve(requested, dataset), dataset)
    run = RunFolder.create(out, name) if name else RunFolder.create_numbered(out, resolved.data.path)
    return _train_in_folder(run, resolved, dataset, display)


def resume(run: str | os.PathLike[str], *, progress: bool = True, trust: Sequence[str] = (), **settings: Any) -> Run:
    """Resume a training that was interrupted, from its last checkpoint; it ends as an uninterrupted one would have.

    settings: `train.epochs` may grow; `data.path` may say where the same images are now. trust: the import path of a
    model of your own, again. RunError if it is not the folder of a training, or another process owns it; ConfigError
    for another setting.

    >>> classifier.resume(run, progress=False, **{"train.epochs": 4}).history.num_rows
    4
    """
    allow_imports(*trust)
    refuse_lost_results("", resume=os.fspath(run), fix="out of the training to a folder outside it")
    folder = RunFolder.resume(os.fspath(run))
    try:
        if (folder.folder / "trials").exists():
            raise RunError(f"{folder.folder} is a search, not a training: resume it with run_search(resume=...)")
        experiment = read_experiment(folder.folder / "experiment.yaml")
        for setting, value in settings.items():
            if setting not in ("train.epochs", "data.path"):
                raise ConfigError(f"{setting} cannot be changed by resume: only train.epochs and data.path can")
            if setting == "train.epochs" and value < experiment.train.epochs:
                raise ConfigError(f"train.epochs {value} is fewer than the run's {experiment.train.epochs}")
        experiment = experiment.override_all(settings)
        found = find_data(
            experiment.data,
            folder.folder,
            "give their new path as data.path",
            is_new_path="data.path" in settings,
        )
        experiment = dataclasses.replace(experiment, data=found)
        display = Progress(progress)
        dataset = data.load(experiment.data, display.progress_bar)
        check_same_data(folder.folder, dataset)
        resolved = resolve(experiment, dataset)
        folder.set_result_aside()
    except BaseException:
        folder.close()
        raise
    return _train_in_folder(folder, resolved, dataset, display)


def calibrate_training(run: RunFolder, dataset: Dataset, missing: Missing) -> LoadedBundle | None:
    """Calibrate the run's bundle on the validation images; None without any, or if that failed, which is noted."""
    loaded = None
    if len(dataset.validation):
        with missing.note(CALIBRATION, f"classifier calibrate {run.folder}"):
            loaded = calibrate_saved_bundle(run.folder, dataset, run.folder)
    return loaded


def write_training_results(
    run: RunFolder, kind: str, status: str, loaded: LoadedBundle | None, missing: Missing
) -> dict[str, Any]:
    """Write result.json and, if they can be written, the pages of a training; return the result.

    loaded: the run's bundle, if it is in memory.
    """
    result = run.write_result(kind, status, **result_fields(run.folder, loaded), **missing.as_field())
    write_pages(run.folder, missing)
    return result


def _request_experiment(
    path: str | Path | None, recipe: str | None, experiment: Experiment | Mapping[str, Any] | str | Path | None
) -> Experiment:
    """The recipe, overridden by the experiment, with the path of the data."""
    if recipe == AUTO:
        given = dict(experiment) if isinstance(experiment, Mapping) else {}
        data_settings = {name: value for name, value in flatten(given).items() if name.startswith("data.")}
        facts = measure_facts(Experiment().override_all(data_settings | {"data.path": str(path or "digits")}).data)
        chosen = choose_recipe(facts).experiment
    else:
        chosen = get_recipe(recipe) if recipe else None
    if isinstance(experiment, Experiment):
        if chosen is not None:
            raise ConfigError("give a recipe or an Experiment, not both: an Experiment has every setting")
        chosen = experiment
        trust_models([chosen.model.name])
    elif isinstance(experiment, Mapping):
        chosen = Experiment.from_dict(dict(experiment), chosen or get_recipe(recipe_for(str(path or "digits"))))
        trust_models([chosen.model.name])
    elif experiment is not None:
        chosen = read_experiment(experiment, chosen)
    chosen = chosen or get_recipe(recipe_for(str(path or "digits")))
    return chosen.override("data.path", str(path)) if path is not None else chosen


def _fix_batch_size(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with the batch size that data.batch_auto asks for."""
    if not experiment.data.batch_auto:
        return experiment
    batch, _ = find_batch_size(experiment, dataset)
    return experiment.override_all({"data.batch": batch, "data.batch_auto": False})


def _train_in_folder(run: RunFolder, experiment: Experiment, dataset: Dataset, display: Progress) -> Run:
    """Train, calibrate and write the results; an interrupted or failed run is recorded as such."""
    group = ProcessGroup.current(pick_device(experiment.train.device))
    with contextlib.closing(run), display.attach(run.folder / "run.log"):
        try:
            save_inputs(run, experiment, dataset)
            for line in describe_run(experiment, dataset):
                display.info(line)
            for epoch in record_training(run, experiment, dataset, group=group, on_step=display.show_step):
                display.info(describe_epoch(epoch.row(), experiment.train.epochs))
            missing = Missing()
            if (loaded := calibrate_training(run, dataset, missing)) is not None:
                display.info(describe_calibration(loaded.bundle))
            write_training_results(run, KIND, "finished", loaded, missing)
            for line in missing.describe():
                warnings.warn(line, stacklevel=3)
                display.info(line)
        except BaseException as error:
            record_failure(run, KIND, error, experiment)
            raise
    return Run(run.folder)
