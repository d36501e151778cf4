"""The last training of a search: its winner learns from the validation images too, in the time that is left."""

import dataclasses
import shutil

import torch

from classifier import bundle
from classifier.calibrated import keep
from classifier.calibration import Calibration
from classifier.checkpoint import Store
from classifier.config import Experiment
from classifier.data.dataset import Dataset, Part
from classifier.data.images import chosen, joined
from classifier.distributed import Group, pick_device
from classifier.resolve import resolve
from classifier.run import Run, read_experiment
from jobs._leaderboard import Leaderboard
from jobs._memory import Clock
from jobs._pace import BEGINNING, Deadline
from jobs._work import Work, train_in

# A last training with less than this share of the epochs that the winner had would lose more than the validation
# images bring.
WORTH = 0.75


def trained(work: Work, board: Leaderboard, clock: Clock) -> Experiment | None:
    """Train the winner's experiment on training and validation images together; its bundle becomes the search's.

    Where the minutes do not hold all of its epochs, it has fewer, and fewer still where the machine becomes slower
    meanwhile. Its validation scores would be those of images that it has seen: the bundle has none. The experiment as
    it was trained; None if there was no time for it, or it was stopped.
    """
    run, say = Run(work.run.folder / "final"), work.journal.say
    _, experiment = board.winner()
    epochs = board.ranked()[0].sample.get("train.epochs", clock.plan.end.epochs)
    dataset = merged(work.dataset)
    alone = board.epoch_seconds() or clock.plan.end.epoch
    if Store(run.checkpoints).latest_manifest():  # a resumed search goes on with what it had begun
        fitting = read_experiment(run.folder / "experiment.yaml").train.epochs
    elif experiment.search.minutes and alone:
        seconds = clock.left_to_train(alone) - BEGINNING
        fitting = min(epochs, int(seconds / (clock.plan.end.learning * alone)))
    else:
        fitting = epochs
    if fitting < WORTH * experiment.train.epochs:
        say(f"note: the winner is not trained once more: {max(0, fitting)} epochs are what the minutes still hold")
        return None
    say("the winner is trained once more, on training and validation images together")
    if fitting < epochs:
        say(f"note: it has {fitting} epochs, as many as the minutes hold, instead of {epochs}")
    wanted = experiment.override_all({"train.epochs": fitting, "train.keep": "last", "train.patience": None})
    if experiment.schedule.name == "plateau":  # it waits for scores, be they of images that it has seen
        dataset = dataclasses.replace(dataset, validation=work.dataset.validation)
    run.folder.mkdir(exist_ok=True)
    device = pick_device(resolve(wanted, dataset).train.device)
    while True:
        last = dataclasses.replace(work, run=run, experiment=resolve(wanted, dataset), dataset=dataset)
        run.write_experiment(last.experiment)
        deadline = Deadline(clock.left_to_train(alone))
        stopped = train_in(last, Group(device=device), deadline.is_missed_by)
        if not stopped:
            break
        if work.interrupts.asked:
            return None
        wanted = wanted.override("train.epochs", deadline.fitting)
        say(f"note: it became slower: {deadline.fitting} epochs are what the minutes still hold")
    made, model = bundle.load(run.folder)
    made = dataclasses.replace(made, scores={"validation": None, "test": None}, dataset=work.dataset.summary())
    # What was learned of the winner holds for it: it has seen the images that could tell more.
    known = Calibration.from_dict(bundle.read(work.run.folder).calibration or {})
    keep(made, known, model, work.dataset, work.run.bundle, device)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return experiment.override("train.epochs", wanted.train.epochs)


def merged(dataset: Dataset) -> Dataset:
    """The data set with its validation images among the training ones; none is left to validate with."""
    parts = (dataset.train, dataset.validation)
    train = Part(
        joined(*(part.images_NCHW for part in parts)),
        torch.cat([part.labels_N for part in parts]),
        tuple(name for part in parts for name in part.ids),
    )
    none = torch.empty(0, dtype=torch.int64)
    validation = Part(chosen(dataset.validation.images_NCHW, none), none, ())
    return dataclasses.replace(dataset, train=train, validation=validation)
