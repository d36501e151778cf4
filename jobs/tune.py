"""Search for the best settings: python jobs/tune.py photos/ --search.trials 16 --search.minutes 30

Each trial is a training, stopped early if it falls behind. The search ends with a table, `best.yaml` (the winner's
experiment), `trials.parquet`, and the winner's bundle, tested once on the held-out test split.
"""

import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from classifier.runtime.timing import Deadline

    from .search.history import SearchClock
    from .search.leaderboard import Leaderboard
    from .search.live_table import LiveTable
    from .search.plan import SearchPlan
    from .search.searcher import SearchHistory
    from .search.tuner import TrialEvent
    from .steps.session import Session

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name


from .cli.command import main
from .cli.verb import EXIT_DONE, SECTIONS, Request, TrainingOptions, Verb

VERB = Verb(
    name="tune",
    examples=(
        "# the built-in digits, in two minutes",
        "photos/ --search.trials 16 --search.minutes 30",
        "--search.vary optimizer.lr=1e-3..1:log",
        "--search.space space.yaml",
        "--search.objective accuracy,latency",
        "--resume runs/NAME --search.trials 32",
    ),
    options=TrainingOptions,
    sections=("search", *SECTIONS),
    common=(
        "search.minutes",
        "search.trials",
        "search.vary",
        "search.space",
        "search.objective",
        "train.epochs",
        "model.weights",
        "workers.count",
        "seed",
    ),
)


def tune(request: Request) -> int:
    """Search, or with --dry_run only print what would be searched."""
    from .steps.session import open_session

    if request.options.dry_run:
        from .search.search_space import describe_space
        from .steps.dry_run import dry_run

        dry_run(request, describe_space, in_steps=True)
        return EXIT_DONE
    with open_session(VERB.name, request) as session:
        return search(session, resumed=bool(request.options.resume))


def search(session: "Session", *, resumed: bool) -> int:
    """Plan, run the trials, choose the winner, test it once, and write what was found; the exit code."""
    session.log.begin_phase("loading Ray")
    from .search import conclude, history, tuner
    from .search.leaderboard import Leaderboard
    from .search.live_table import LiveTable
    from .search.plan import make_plan, single_trial_plan

    with session.interrupts.nothing_to_save():
        plan = make_plan(
            session.requested,
            session.dataset,
            session.run.folder,
            resumed=resumed,
            begin_phase=session.log.begin_phase,
            spent_seconds=lambda: session.run.seconds,
        )
    session.run.write_requested_experiment(plan.experiment)
    past = history.load_history(session.run.folder, plan, session.dataset)
    for line in (*history.check_unchanged(session.run.folder, session.dataset), *plan.describe()):
        session.log.info(line)
    board = Leaderboard(session.run, plan)
    clock = history.SearchClock(session.run, plan)

    def run(
        plan: "SearchPlan",
        trials: "SearchHistory",
        seconds_left: "Callable[[], float]",
        subject: str | None = None,
        deadline: "Deadline | None" = None,
    ) -> None:
        with contextlib.closing(tuner.run_trials(session, plan, trials, seconds_left, board.best_epochs)) as events:
            watch(session, board, clock, events, LiveTable(board, clock, subject), deadline)

    if plan.is_single and plan.experiment.search.minutes:
        plan = train_once(session, plan, board, clock, run)
    else:
        run(plan, past, lambda: clock.trial_seconds_left(plan.search_share))
    stopped = session.interrupts.stop_requested
    if not stopped and (more := history.plan_longer_trial(plan, board, clock)):
        session.log.info(f"now training the best settings for {more.pending[0].changes['train.epochs']} epochs")
        run(single_trial_plan(plan), more, clock.seconds_left, "the best settings, for longer")
    elif not stopped and plan.search_share < 1 and clock.seconds_left() > history.ACTOR_START_SECONDS:
        unfinished = history.unfinished_history(session.run.folder, plan, session.dataset, board)
        run(plan, unfinished, clock.seconds_left)
    if not session.interrupts.stop_requested and (lost := history.plan_lost_winner(plan, board)):
        session.log.info("the models of all trials are missing: now training the best settings again")
        run(single_trial_plan(plan), lost, lambda: math.inf, "the best settings, again")  # or there were no model
    return conclude.finish(session, board, clock)


def train_once(
    session: "Session", plan: "SearchPlan", board: "Leaderboard", clock: "SearchClock", run: "Callable[..., None]"
) -> "SearchPlan":
    """Run the only trial, with fewer epochs if not all fit into the minutes; return the plan that it ended with.

    A linear probe is made in any case: it takes seconds, and without it there were no model.
    """
    from classifier.runtime.timing import Deadline

    from .search import history
    from .search.trial_budget import ACTOR_START_SECONDS

    while True:
        deadline = Deadline(clock.seconds_left(), restart_seconds=ACTOR_START_SECONDS)

        def seconds_left(deadline: Deadline = deadline, takes_steps: bool = plan.experiment.takes_steps) -> float:
            if not takes_steps:
                return math.inf
            return 0.0 if deadline.is_missed else clock.trial_seconds_left()

        run(plan, history.load_history(session.run.folder, plan, session.dataset), seconds_left, deadline=deadline)
        if not deadline.is_missed or session.interrupts.stop_requested:
            return plan
        epochs = deadline.epochs_that_fit
        session.log.info(f"note: training has slowed down: only {epochs} epochs fit into the remaining minutes")
        board.plan = plan = plan.shorten(epochs)
        board.experiment = plan.experiment
        session.run.write_requested_experiment(plan.experiment)


def watch(
    session: "Session",
    board: "Leaderboard",
    clock: "SearchClock",
    events: "Iterator[TrialEvent]",
    live: "LiveTable",
    deadline: "Deadline | None" = None,
) -> None:
    """Record what the trials report, and show the leaderboard. deadline: of the only trial, which learns its speed."""
    from .search.schedulers import REPLAYED

    session.log.begin_phase("starting trials")  # without a terminal, this is said
    session.log.show(live)
    for event in events:
        row = board.record(event, clock.elapsed_seconds())
        clock.update(board)
        if deadline is not None and not (event.has_ended or event.changes or event.report.get(REPLAYED)):
            deadline.update(row.epochs, board.experiment.train.epochs)
        if event.has_ended:
            session.log.info(board.describe_trial(row))
        if session.log.is_live:
            live.update()
    session.log.clear()


if __name__ == "__main__":
    main(VERB, tune)
