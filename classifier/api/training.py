"""Train from Python, in this process."""

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier import data
from classifier.api.choice import choose
from classifier.api.missing import CALIBRATION, Missing
from classifier.api.pages import write_pages
from classifier.api.progress import Progress
from classifier.api.run import Run
from classifier.api.unlabelled import GAIN, explain_unmeasured, measure_unlabelled
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.config.experiment import Experiment, flatten
from classifier.config.files import read_experiment
from classifier.config.recipes import AUTO, recipe_for
from classifier.config.recipes import recipe as get_recipe
from classifier.config.trust import check_trusted, trust_models
from classifier.config.trust import trust as allow_imports
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, RunError
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration, is_validated_by_folds
from classifier.inference.logistic_regression import find_held_out
from classifier.profiling.step_time import find_batch_size
from classifier.report.sections.unlabelled_section import describe_gain
from classifier.runs.data_location import check_same_data, find_data
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_failure, record_training, result_fields, save_inputs
from classifier.runs.schema import UnlabelledGain
from classifier.runtime.cpu import OtherLoad
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.runtime.threads import use_free_cores, use_threads
from classifier.storage.session_folder import refuse_lost_results
from classifier.training.progress import describe_epoch, describe_fusion, describe_run
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
    auto, which chooses by the images; by default that of a data set known by name, else auto. experiment:
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
    given = {"data.path": None if path is None else str(path), "train.minutes": minutes}
    settings |= {name: value for name, value in given.items() if value is not None}
    Experiment().override_all(settings)  # mistakes show before anything is measured
    display, threads = Progress(progress), _read_threads(experiment, settings)
    use_cores = use_free_cores(OtherLoad(), display.info, "train.threads", threads=threads)
    with tempfile.TemporaryDirectory() as features, use_cores:
        requested = _request_experiment(recipe, experiment, settings, display, Path(features))
        return _train_new(requested, name, out, display, Path(features))


def _train_new(requested: Experiment, name: str | None, out: str | Path, display: Progress, features: Path) -> Run:
    """Train in a new run folder. features: of the backbone, if they are known already."""
    if requested.workers.count > 1:
        raise ConfigError(
            f"classifier.train trains in this process, so workers.count cannot be {requested.workers.count}: use the "
            "command classifier train, which starts workers"
        )
    check_trusted(requested.model.name)
    refuse_lost_results(out, fix="out to a folder outside it, such as /shared/runs")
    dataset = data.load(requested.data, display.progress_bar)
    resolved = _fix_batch_size(resolve(requested, dataset), dataset)
    run = RunFolder.create(out, name) if name else RunFolder.create_numbered(out, resolved.data.path)
    run.feature_folder = features
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
    """Calibrate the run's bundle on the validation images; None without any, or if that failed, which is noted.

    A linear probe is calibrated by folds of the training images where there are no others.
    """
    loaded, about = None, bundles.read(run.folder)
    can_fold = is_validated_by_folds(about) and len(find_held_out(dataset.strata, dataset.train.units_N)) > 0
    if len(dataset.validation) or can_fold:
        with missing.note(CALIBRATION, f"classifier calibrate {run.folder}"):
            loaded = calibrate_saved_bundle(run.folder, dataset, run.folder, features=run.feature_folder)
    return loaded


def write_training_results(
    run: RunFolder,
    kind: str,
    status: str,
    loaded: LoadedBundle | None,
    missing: Missing,
    gain: UnlabelledGain | None = None,
) -> dict[str, Any]:
    """Write result.json and, if they can be written, the pages of a training; return the result.

    loaded: the run's bundle, if it is in memory. gain: what unlabelled images brought, if that was measured.
    """
    measured = {} if gain is None else {"unlabelled": gain}
    result = run.write_result(kind, status, **result_fields(run.folder, loaded), **measured, **missing.as_field())
    write_pages(run.folder, missing)
    return result


def _request_experiment(
    recipe: str | None,
    experiment: Experiment | Mapping[str, Any] | str | Path | None,
    settings: dict[str, Any],
    display: Progress,
    features: Path,
) -> Experiment:
    """The recipe, overridden by the experiment, overridden by the settings."""
    if isinstance(experiment, Experiment):
        if recipe is not None:
            raise ConfigError("give a recipe or an Experiment, not both: an Experiment has every setting")
        trust_models([experiment.model.name])
        return experiment.override_all(settings)
    if isinstance(experiment, Mapping):
        settings = flatten(dict(experiment)) | settings
        trust_models([str(settings.get("model.name", ""))])
    elif experiment is not None:
        stored = read_experiment(experiment, get_recipe(recipe) if recipe not in (None, AUTO) else None)
        if recipe != AUTO:
            return stored.override_all(settings)
        settings = flatten(stored.as_dict()) | settings
    recipe = recipe or recipe_for(str(settings.get("data.path", "digits")))
    if recipe != AUTO:
        return get_recipe(recipe).override_all(settings)
    choice = choose(settings, features=features, say=display.info, progress=display.progress_bar)
    for line in choice.lines:
        display.info(line)
    return choice.experiment.override_all(settings)


def _read_threads(experiment: Experiment | Mapping[str, Any] | str | Path | None, settings: dict[str, Any]) -> Any:
    """The train.threads that the user has set, if any."""
    if isinstance(experiment, str | Path):
        experiment = read_experiment(experiment, Experiment())
    given = experiment.as_dict() if isinstance(experiment, Experiment) else dict(experiment or {})
    return (flatten(given) | settings).get("train.threads")


def _fix_batch_size(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with the batch size that data.batch_auto asks for."""
    if not experiment.data.batch_auto:
        return experiment
    batch, _ = find_batch_size(experiment, dataset)
    return experiment.override_all({"data.batch": batch, "data.batch_auto": False})


def _train_in_folder(run: RunFolder, experiment: Experiment, dataset: Dataset, display: Progress) -> Run:
    """Train, calibrate and write the results; an interrupted or failed run is recorded as such."""
    group = ProcessGroup.current(pick_device(experiment.train.device))
    with contextlib.closing(run), display.attach(run.folder / "run.log"), use_threads(experiment.train.threads):
        try:
            save_inputs(run, experiment, dataset)
            for line in describe_run(experiment, dataset):
                display.info(line)
            for epoch in record_training(run, experiment, dataset, group=group, on_step=display.show_step):
                display.info(describe_epoch(epoch.row(), experiment.train.epochs))
            missing = Missing()
            if (loaded := calibrate_training(run, dataset, missing)) is not None:
                display.info(describe_calibration(loaded.bundle))
            if fusion := bundles.read(run.folder).fusion:
                display.info(describe_fusion(fusion))
            gain = None
            with missing.note(GAIN, f"classifier train --resume {run.folder}"):
                gain = measure_unlabelled(run, experiment, dataset)
            if gain is not None:
                display.info(describe_gain(gain))
            elif why := explain_unmeasured(experiment, dataset):
                display.info(f"note: {why}")
            write_training_results(run, KIND, "finished", loaded, missing, gain)
            for line in missing.describe():
                warnings.warn(line, stacklevel=3)
                display.info(line)
        except BaseException as error:
            record_failure(run, KIND, error, experiment)
            raise
    return Run(run.folder)
