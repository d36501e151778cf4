"""The end of a search: the winner packed, trained once more if wished, tested once, and what was learned told."""

import dataclasses
import shutil

import torch

from classifier import bundle, report, search_page
from classifier.calibrated import keep
from classifier.calibration import Calibration
from classifier.config import Experiment
from classifier.data.dataset import Dataset, Part
from classifier.data.images import chosen, joined
from classifier.distributed import Group, pick_device
from classifier.files import write_atomically
from classifier.recorded import brief, outcome
from classifier.resolve import resolve
from classifier.run import Run, dump_experiment
from jobs import _belief, _holdout, _storage
from jobs._cli import EXIT_DONE, EXIT_INTERRUPTED
from jobs._leaderboard import Leaderboard
from jobs._learned import importance
from jobs._work import Work, earlier_reads, train_in

TRIAL_STATES = ("finished", "stopped", "unfinished", "failed")


def finish(work: Work, board: Leaderboard, seconds: float) -> int:
    """Pack the winner, test it once, and write what the search found in so many seconds."""
    run, journal, interrupted = work.run, work.journal, work.interrupts.asked
    journal.quiet()
    board.catch_up(seconds)
    if interrupted and not board.has_winner:
        run.write_result(work.kind, "stopped", config=work.experiment.as_dict(), dataset=work.dataset.summary())
        journal.say(
            f"stopped before a trial came to the end of an epoch; go on: python jobs/tune.py --resume {run.folder}"
        )
        journal.say(str(run.folder))
        return EXIT_INTERRUPTED
    board.write()
    journal.say(board.table())
    winner, experiment = board.winner()
    _storage.bring_trials(run, winner.folder.name, bundle=True)
    write_atomically(run.folder / "best.yaml", dump_experiment(experiment))
    bundle.save(*bundle.load(winner.folder), run.bundle)
    parts = outcome(winner.folder)
    selection = parts["validation"]
    if not interrupted:
        journal.say(_belief.learned(run.folder, run.folder, work.dataset)[1])
    if experiment.search.final and not interrupted and _final(work, experiment):
        parts = outcome(run.folder) | {name: parts[name] for name in ("epochs", "images_per_second", "input_wait")}
    reading = _holdout.taken(run.folder, [run.folder], device=experiment.train.device, dataset=work.dataset)
    for thing in _holdout.score_tables(reading.scores):
        journal.say(thing)
    status = "stopped" if interrupted else "finished"
    run.write_result(
        work.kind,
        status,
        **parts | {"test": brief(reading.scores), "test_reads": earlier_reads(run.folder) + 1},
        winner=winner.folder.name,
        selection=selection,
        trials={state: sum(board.status(row) == state for row in board.rows.values()) for state in TRIAL_STATES},
        front=[row.trial for row in board.front()],
        importance=importance(board),
        objective=list(experiment.search.objective),
        search_seconds=board.seconds(),
    )
    search_page.write(run.folder)
    journal.say(
        f"{status} after {run.seconds:.0f} s: trial {winner.folder.name} won, validation accuracy "
        f"{selection['accuracy']:.2%}, test accuracy {reading.scores['accuracy']:.2%}"
    )
    journal.say(f"what it learned: {run.folder / search_page.NAME}")
    journal.say(f"all about the model: {report.write(run.folder)}")
    journal.say(f"train it again: python jobs/train.py --experiment {run.folder / 'best.yaml'}")
    journal.say(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE


def _final(work: Work, experiment: Experiment) -> bool:
    """Train the winner's experiment on training and validation images together; its bundle becomes the search's.

    Its validation scores would be those of images that it has seen: the bundle has none. False if it was stopped.
    """
    work.journal.say("the winner is trained once more, on training and validation images together")
    dataset = merged(work.dataset)
    if experiment.schedule.name == "plateau":  # it waits for scores, be they of images that it has seen
        dataset = dataclasses.replace(dataset, validation=work.dataset.validation)
    experiment = resolve(experiment.override("train.keep", "last").override("train.patience", None), dataset)
    run = Run(work.run.folder / "final")
    run.folder.mkdir(exist_ok=True)
    run.write_experiment(experiment)
    last = dataclasses.replace(work, run=run, experiment=experiment, dataset=dataset)
    if train_in(last, Group(device=pick_device(experiment.train.device))):
        return False
    made, model = bundle.load(run.folder)
    made = dataclasses.replace(made, scores={"validation": None, "test": None}, dataset=work.dataset.summary())
    # What was learned of the winner holds for it: it has seen the images that could tell more.
    known = Calibration.from_dict(bundle.read(work.run.folder).calibration or {})
    keep(made, known, model, work.dataset, work.run.bundle, pick_device(experiment.train.device))
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return True


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
