"""The refit of a search: its winner is trained on validation images too, in the time left."""

import dataclasses
import json
import math
import shutil

from classifier.bundle import bundle
from classifier.config.documents import read_json
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.evaluation.calibrate import save_with_ood_detector
from classifier.runs.folder import FEATURES, RunFolder
from classifier.runs.schema import RefitOf
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.runtime.timing import Deadline
from classifier.search.budget import MIN_STEP_SHARE, optimizer_steps_per_epoch
from classifier.storage.atomic import write_atomically
from classifier.training.resolve import resolve

from ..launch import workers
from ..steps.session import Session
from ..steps.training import train_in_process
from .history import SearchClock
from .leaderboard import Leaderboard


def refit_winner(session: Session, board: Leaderboard, clock: SearchClock) -> Experiment | None:
    """Train the winner's experiment on training and validation images together; its bundle becomes the search's.

    It has fewer epochs if all do not fit into the minutes, and fewer still if the machine slows down meanwhile; a
    linear probe takes seconds, and is refit in any case. The bundle has no validation scores, as the model has trained
    on those images. Returns the experiment as it was trained; None if there was no time for it, or it was interrupted.
    """
    log, plan = session.log, clock.plan
    winner, experiment = board.winner()
    epoch_seconds = board.epoch_seconds() or plan.conclusion.epoch_seconds
    on_workers = not plan.is_local or experiment.workers.count > 1
    run, started_epochs = open_refit_run(session, winner.folder.name, on_workers=on_workers)
    row = board.rank_rows()[0]
    wanted_epochs = row.changes.get("train.epochs", plan.conclusion.refit_epochs)
    fitting_epochs = _epochs_that_fit(clock, epoch_seconds) if experiment.takes_steps else math.inf
    epochs = started_epochs or min(wanted_epochs, fitting_epochs)
    train, validation = len(session.dataset.train), len(session.dataset.validation)
    if epochs < wanted_epochs and epochs * (train + validation) < MIN_STEP_SHARE * row.epochs * train:
        log.info(f"note: the winner is not refit: only {max(0, epochs)} epochs fit into the remaining minutes")
        return None
    log.info("refitting the winner on training and validation images together")
    if epochs < wanted_epochs:
        log.info(f"note: the refit has {epochs} epochs instead of {wanted_epochs}: no more fit into the minutes")
    if on_workers:  # a worker has the cores of a trial
        experiment = experiment.override("workers.cpus", plan.experiment.workers.cpus)
    while True:
        last = experiment.override_all({"train.epochs": epochs, "train.keep": "last", "train.patience": None})
        deadline = Deadline(
            clock.training_seconds_left(epoch_seconds, from_refit=True),
            restart_seconds=plan.conclusion.refit_start_seconds,
        )
        if not (_train_on_workers if on_workers else _train_locally)(session, run, last, deadline):
            break
        if session.interrupts.stop_requested:
            return None
        epochs = deadline.epochs_that_fit
        log.info(f"note: training has slowed down: only {epochs} epochs fit into the remaining minutes")
    refit_bundle, model = bundle.load(run.folder, pick_device(session.experiment.train.device))
    # The refit model has trained on the validation images, so it takes over the winner's calibration.
    refit_bundle = dataclasses.replace(
        refit_bundle,
        scores={"validation": None, "test": None},
        dataset=session.dataset.summary(),
        calibration=bundle.read(session.run.folder).calibration,
    )
    save_with_ood_detector(bundle.LoadedBundle(refit_bundle, model), session.dataset, session.run.bundle)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if run.storage is not None:
        run.storage.remove("")
    return experiment.override_all({"train.epochs": epochs, "workers.cpus": None})


def _epochs_that_fit(clock: SearchClock, epoch_seconds: float) -> int | float:
    """Epochs that fit into the time left. epoch_seconds: of one of a trial's epochs, with the machine to itself."""
    plan = clock.plan
    if not plan.experiment.search.minutes or not epoch_seconds:
        return math.inf
    seconds = clock.training_seconds_left(epoch_seconds, from_refit=True) - plan.conclusion.refit_start_seconds
    return int(seconds / (plan.conclusion.refit_epoch_factor * epoch_seconds))


def open_refit_run(session: Session, winner: str, *, on_workers: bool) -> tuple[RunFolder, int | None]:
    """Open the refit's run, and return how many epochs an earlier process has started it with, if it did.

    One that was started for another winner is deleted.
    """
    # No mirror covers ray/: the worker uploads its own copy.
    storage = session.run.storage.subfolder("ray/final") if session.run.storage is not None and on_workers else None
    run = RunFolder(session.run.folder / "final", storage, feature_folder=session.run.folder / FEATURES)
    winner_file, experiment_file = run.folder / "winner.json", run.folder / "experiment.yaml"
    if winner_file.exists() and read_json(winner_file, RefitOf)["trial"] == winner and experiment_file.exists():
        return run, read_experiment(experiment_file).train.epochs
    shutil.rmtree(run.folder, ignore_errors=True)
    if storage is not None:
        storage.remove("")
    run.folder.mkdir()
    write_atomically(winner_file, json.dumps({"trial": winner}) + "\n")
    return run, None


def _train_locally(session: Session, run: RunFolder, experiment: Experiment, deadline: Deadline) -> bool:
    """Train in this process; return whether it was stopped."""
    dataset = session.dataset.merge_validation(experiment)
    experiment = resolve(experiment, dataset)
    run.write_experiment(experiment)
    last = dataclasses.replace(session, run=run, experiment=experiment, dataset=dataset)
    return bool(train_in_process(last, ProcessGroup(device=pick_device(experiment.train.device)), deadline))


def _train_on_workers(session: Session, run: RunFolder, experiment: Experiment, deadline: Deadline) -> bool:
    """Train on Ray's workers; return whether it was stopped."""
    run.write_experiment(experiment)
    step, epochs = 0, experiment.train.epochs

    def should_stop() -> bool:
        return deadline.is_missed or session.interrupts.stop_requested

    for row in workers.train(run, experiment, should_stop=should_stop, merged=True):
        session.log.log_epoch(row, epochs)
        deadline.update(row["epoch"], epochs)
        step = row["step"]
    # It may have finished before it was told to stop.
    return step < epochs * optimizer_steps_per_epoch(
        experiment, session.dataset, len(session.dataset.train) + len(session.dataset.validation)
    )
