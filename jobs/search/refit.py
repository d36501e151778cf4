"""The last training of a search: its winner learns from the validation images too, in the time that is left."""

import dataclasses
import json
import math
import shutil

from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.evaluation.calibrate import save_with_ood_detector
from classifier.runs.folder import FEATURES, Run
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.runtime.timing import Deadline
from classifier.search.budget import optimizer_steps_per_epoch
from classifier.storage.atomic import write_atomically
from classifier.training.resolve import resolve
from jobs.launch import workers
from jobs.search.history import SearchClock
from jobs.search.leaderboard import Leaderboard
from jobs.steps.session import Session
from jobs.steps.training import train_in_process

# A last training with less than this share of the steps that the winner had would lose more than the validation images
# bring.
MIN_STEP_SHARE = 0.75


def refit_winner(work: Session, board: Leaderboard, clock: SearchClock) -> Experiment | None:
    """Train the winner's experiment on training and validation images together; its bundle becomes the search's.

    Where the minutes do not hold all of its epochs, it has fewer, and fewer still where the machine becomes slower
    meanwhile. Its validation scores would be those of images that it has seen: the bundle has none. The experiment as
    it was trained; None if there was no time for it, or it was stopped.
    """
    say, plan = work.log.info, clock.plan
    winner, experiment = board.winner()
    alone = board.epoch_seconds() or plan.conclusion.epoch_seconds
    elsewhere = not plan.is_local or experiment.workers.count > 1
    run, begun = open_refit_run(work, winner.folder.name, elsewhere=elsewhere)
    row = board.rank_rows()[0]
    wanted = row.changes.get("train.epochs", plan.conclusion.refit_epochs)
    epochs = begun or min(wanted, _epochs_that_fit(clock, alone))
    train, held = len(work.dataset.train), len(work.dataset.validation)
    if epochs < wanted and epochs * (train + held) < MIN_STEP_SHARE * row.epochs * train:
        say(f"note: the winner is not trained once more: {max(0, epochs)} epochs are what the minutes still hold")
        return None
    say("the winner is trained once more, on training and validation images together")
    if epochs < wanted:
        say(f"note: it has {epochs} epochs, as many as the minutes hold, instead of {wanted}")
    if elsewhere:  # it has of a machine what a trial had
        experiment = experiment.override("workers.cpus", plan.experiment.workers.cpus)
    while True:
        last = experiment.override_all({"train.epochs": epochs, "train.keep": "last", "train.patience": None})
        deadline = Deadline(clock.training_seconds_left(alone, is_late=True), restart_seconds=plan.conclusion.refit_start_seconds)
        if not (_train_on_workers if elsewhere else _train_locally)(work, run, last, deadline):
            break
        if work.interrupts.stop_requested:
            return None
        epochs = deadline.epochs_that_fit
        say(f"note: it became slower: {epochs} epochs are what the minutes still hold")
    made, model = bundle.load(run.folder, pick_device(work.experiment.train.device))
    # The refit model has trained on the validation images, so it takes over the winner's calibration.
    made = dataclasses.replace(
        made,
        scores={"validation": None, "test": None},
        dataset=work.dataset.summary(),
        calibration=bundle.read(work.run.folder).calibration,
    )
    save_with_ood_detector(bundle.LoadedBundle(made, model), work.dataset, work.run.bundle)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if run.storage is not None:
        run.storage.remove("")
    return experiment.override_all({"train.epochs": epochs, "workers.cpus": None})


def _epochs_that_fit(clock: SearchClock, alone: float) -> int | float:
    """Epochs for which there is time left, where one takes so many seconds in a trial."""
    plan = clock.plan
    if not plan.experiment.search.minutes or not alone:
        return math.inf
    seconds = clock.training_seconds_left(alone, is_late=True) - plan.conclusion.refit_start_seconds
    return int(seconds / (plan.conclusion.refit_epoch_factor * alone))


def open_refit_run(work: Session, winner: str, *, elsewhere: bool) -> tuple[Run, int | None]:
    """Its run, and how many epochs an earlier process has begun it with; what it had begun for another winner goes."""
    # No mirror looks below ray/: the worker keeps its copy by itself.
    storage = work.run.storage.subfolder("ray/final") if work.run.storage is not None and elsewhere else None
    run = Run(work.run.folder / "final", storage, feature_folder=work.run.folder / FEATURES)
    about, written = run.folder / "winner.json", run.folder / "experiment.yaml"
    if about.exists() and json.loads(about.read_text())["trial"] == winner and written.exists():
        return run, read_experiment(written).train.epochs
    shutil.rmtree(run.folder, ignore_errors=True)
    if storage is not None:
        storage.remove("")
    run.folder.mkdir()
    write_atomically(about, json.dumps({"trial": winner}) + "\n")
    return run, None


def _train_locally(work: Session, run: Run, experiment: Experiment, deadline: Deadline) -> bool:
    """Train in this process; whether it was stopped."""
    dataset = work.dataset.merge_validation(experiment)
    experiment = resolve(experiment, dataset)
    run.write_experiment(experiment)
    last = dataclasses.replace(work, run=run, experiment=experiment, dataset=dataset)
    return bool(train_in_process(last, ProcessGroup(device=pick_device(experiment.train.device)), deadline))


def _train_on_workers(work: Session, run: Run, experiment: Experiment, deadline: Deadline) -> bool:
    """Train on Ray's workers; whether it was stopped."""
    run.write_experiment(experiment)
    step, epochs = 0, experiment.train.epochs

    def should_stop() -> bool:
        return deadline.is_missed or work.interrupts.stop_requested

    for row in workers.train(run, experiment, should_stop=should_stop, merged=True):
        work.log.log_epoch(row, epochs)
        deadline.update(row["epoch"], epochs)
        step = row["step"]
    # It may have come to its end before it heard that it was to stop.
    return step < epochs * optimizer_steps_per_epoch(experiment, len(work.dataset.train) + len(work.dataset.validation))
