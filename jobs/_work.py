"""What the verbs that train have in common: begin a run folder, go on with one, and end it with a result."""

import contextlib
import json
import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier import bundle, data, plots
from classifier.config import Experiment
from classifier.data.dataset import Dataset
from classifier.distributed import Group, pick_device
from classifier.errors import ClassifierError, ConfigError, DivergedError
from classifier.files import write_atomically
from classifier.recorded import brief, outcome, recorded
from classifier.resolve import resolve
from classifier.run import Run, dump_experiment, read_experiment
from jobs import _holdout, _torchrun
from jobs._cli import EXIT_DONE, EXIT_INTERRUPTED, Interrupts, Request
from jobs._console import Journal, headline

if TYPE_CHECKING:  # ray takes seconds to import, and only a search needs it
    from jobs._leaderboard import Leaderboard

TRIAL_STATES = ("finished", "stopped", "failed")
RESUMABLE = ("workers.", "train.epochs")


@dataclass(frozen=True)
class Work:
    """A run that this process works on: the experiment as it was asked for, and as it was resolved."""

    kind: str
    run: Run
    journal: Journal
    interrupts: Interrupts
    asked: Experiment
    experiment: Experiment
    dataset: Dataset


@contextlib.contextmanager
def begun(kind: str, request: Request) -> Iterator[Work]:
    """A new run, or with --resume an earlier one, with its data loaded and its experiment resolved and saved.

    A mistake that shows before training began leaves no folder behind; a later failure is written into result.json.
    """
    options = request.options
    if options.resume:
        run, experiment = _taken_up(request)
    else:
        experiment = request.experiment()
        run = Run.create(options.out, options.name or default_name(kind, experiment.data.path, options.out))
    try:
        with Interrupts() as interrupts, Journal(run.folder / "run.log") as journal:
            dataset = data.load(experiment.data)
            resolved = resolve(experiment, dataset)
            run.write_experiment(resolved)
            write_atomically(run.folder / "split.json", json.dumps(dataset.loans, indent=1) + "\n")
            for line in headline(resolved, dataset):
                journal.say(line)
            yield Work(kind, run, journal, interrupts, experiment, resolved, dataset)
    except BaseException as error:
        if isinstance(error, ClassifierError) and not isinstance(error, DivergedError) and not run.has_begun:
            run.discard()
        elif not (run.folder / "result.json").exists():
            with (run.folder / "run.log").open("a", encoding="utf-8") as log:
                log.write(f"{error}\n" if isinstance(error, ClassifierError) else traceback.format_exc())
            run.write_result(kind, "failed", error=str(error) or type(error).__name__, config=experiment.as_dict())
        raise
    finally:
        run.close()


@contextlib.contextmanager
def opened(kind: str, options: Any, subject: str) -> Iterator[tuple[Run, Journal]]:
    """A run folder for a verb that trains nothing; it is gone again if the verb fails."""
    run = Run.create(options.out, options.name or default_name(kind, subject, options.out))
    try:
        with Journal(run.folder / "run.log") as journal:
            yield run, journal
    except BaseException:
        run.discard()
        raise
    finally:
        run.close()


def _taken_up(request: Request) -> tuple[Run, Experiment]:
    """The run that --resume names, and its experiment with the few changes that a resumed run may have."""
    options = request.options
    for given in ("name", "recipe", "experiment"):
        if getattr(options, given):
            raise ConfigError(f"--{given} cannot be used with --resume: the run keeps its own")
    folder = Path(options.resume)
    run = Run.resume(folder if folder.is_dir() else Path(options.out) / options.resume)
    try:
        experiment = read_experiment(run.folder / "experiment.yaml")
        for name, value in request.changes.items():
            if not name.startswith(RESUMABLE):
                raise ConfigError(f"--{name} cannot be changed on --resume: only --workers.* and --train.epochs can")
            if name == "train.epochs" and value < experiment.train.epochs:
                raise ConfigError(
                    f"--train.epochs {value} is fewer than the run's {experiment.train.epochs}: it can grow only"
                )
        changed = experiment.override_all(request.changes)
        if changed.workers.count != experiment.workers.count:
            changed = changed.override("train.threads", None)  # each worker's share of the cores is another
        (run.folder / "result.json").unlink(missing_ok=True)
        return run, changed
    except ClassifierError:
        run.close()
        raise


def default_name(kind: str, path: str, out: str) -> str:
    """Verb, data set and time; a number too, where two runs begin in one second."""
    subject = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).stem).strip("-") or "data"
    name = f"{kind}-{subject}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = [n for n in range(1, 100) if not (Path(out) / (name if n == 1 else f"{name}-{n}")).exists()]
    return name if taken[0] == 1 else f"{name}-{taken[0]}"


def train_here(work: Work) -> str | None:
    """Train in this process, together with others where torchrun launched them; why it stopped early, or None."""
    if _torchrun.world() == 1:
        return _train_in(work, Group.joined(pick_device(work.experiment.train.device)))
    with _torchrun.joined(work.experiment, work.run.folder) as (group, *_):
        return _train_in(work, group)


def _train_in(work: Work, group: Group) -> str | None:
    stopped = None
    for epoch in recorded(
        work.run,
        work.experiment,
        work.dataset,
        group=group,
        should_stop=lambda: work.interrupts.asked,
        on_step=work.journal.progress,
    ):
        work.journal.epoch(epoch.row(), work.experiment.train.epochs)
        stopped = epoch.stopped
    return stopped


def train_on_ray(work: Work) -> str | None:
    """Train on Ray workers; why it stopped early, or None."""
    from jobs import _ray

    _ray.refuse_unplaceable(work.experiment.workers, _ray.connect())
    for row in _ray.train(work.run, work.experiment, should_stop=lambda: work.interrupts.asked):
        work.journal.epoch(row, work.experiment.train.epochs)
    return "asked" if work.interrupts.asked else None


def finish_training(work: Work, stopped: str | None) -> int:
    """Write result.json and the curves, say where everything lies, and give the exit code."""
    run, interrupted = work.run, stopped == "asked"
    parts = outcome(run.folder)
    run.write_result(work.kind, "stopped" if interrupted else "finished", **parts)
    plots.curves_png(run.history(), run.folder / "curves.png")
    validation = parts["validation"]
    work.journal.say(
        f"{'stopped' if interrupted else 'finished'} after {run.seconds:.0f} s: validation accuracy "
        f"{validation['accuracy']:.2%} on {validation['count']:,} images, {parts['parameters']:,} parameters"
    )
    if interrupted:
        work.journal.say(f"go on with it: python jobs/{work.kind}.py --resume {run.folder}")
    else:
        work.journal.say(f"test it, once: python jobs/evaluate.py {run.folder}")
    work.journal.say(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE


def finish_search(work: Work, board: "Leaderboard") -> int:
    """Pack the winner, test it once, and write what the search found."""
    run, journal, interrupted = work.run, work.journal, work.interrupts.asked
    journal.quiet()
    board.write()
    journal.say(board.table())
    winner, experiment = board.winner()
    write_atomically(run.folder / "best.yaml", dump_experiment(experiment))
    bundle.save(*bundle.load(winner.folder), run.bundle)
    reading = _holdout.taken(run.folder, [run.folder], device=experiment.train.device, dataset=work.dataset)
    for thing in _holdout.score_tables(reading.scores):
        journal.say(thing)
    status = "stopped" if interrupted else "finished"
    trials = {state: sum(board.status(row) == state for row in board.rows.values()) for state in TRIAL_STATES}
    parts = outcome(winner.folder) | {"test": brief(reading.scores), "test_reads": 1}
    run.write_result(work.kind, status, **parts, winner=winner.folder.name, trials=trials)
    journal.say(
        f"{status} after {run.seconds:.0f} s: trial {winner.folder.name} won, validation accuracy "
        f"{parts['validation']['accuracy']:.2%}, test accuracy {parts['test']['accuracy']:.2%}"
    )
    journal.say(f"train it again: python jobs/train.py --experiment {run.folder / 'best.yaml'}")
    journal.say(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE
