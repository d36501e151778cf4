"""Search settings: python jobs/tune.py --data.path photos/ --search.trials 16 --search.minutes 30

Each trial is a training of its own, stopped early where it falls behind. The search ends with a table, `best.yaml` (the
winner's whole experiment), `trials.parquet`, and the winner's bundle, tested once on the held-out test split.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.search.history import SearchClock
    from jobs.search.leaderboard import Leaderboard
    from jobs.search.tuner import Event
    from jobs.steps.session import Session

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, SLICES, ExperimentOptions, Request, Verb  # noqa: E402

VERB = Verb(
    name="tune",
    summary="Search learning rate, batch size, architecture or any other setting, and pack the best model.",
    examples=(
        "tune.py                                     # the embedded digits, in two minutes",
        "tune.py --data.path photos/ --search.trials 16 --search.minutes 30",
        "tune.py --search.vary optimizer.lr=1e-3..1:log model.name=cnn,resnet9_16",
        "tune.py --search.space space.yaml           # optimizer.lr: {low: 0.001, high: 1, log: true}",
        "tune.py --search.objective accuracy,latency --search.scheduler asha",
        "tune.py --resume runs/NAME --search.trials 32",
    ),
    options=ExperimentOptions,
    slices=("search", *SLICES),
)


def tune(request: Request) -> int:
    """Plan, search, choose, test once, and say how it went."""
    from jobs.search import conclude, history, tuner
    from jobs.search.leaderboard import Leaderboard
    from jobs.search.plan import make_plan, single_trial_plan
    from jobs.steps.session import open_session

    if request.options.dry_run:
        from jobs.steps.dry_run import rehearse

        rehearse(request)
        return EXIT_DONE
    with open_session(VERB.name, request) as session:
        plan = make_plan(session.requested, session.dataset, session.run.folder, resumed=bool(request.options.resume))
        session.run.write_requested_experiment(plan.experiment)
        past = history.load_history(session.run.folder, plan, session.dataset)
        for line in (*history.check_unchanged(session.run.folder, session.dataset), *plan.describe()):
            session.log.info(line)
        board = Leaderboard(session.run, plan)
        best = board.best_epochs
        clock = history.SearchClock(session.run, plan)
        watch(session, board, clock, tuner.run_trials(session, plan, past, lambda: clock.seconds_left(plan.search_share), best))
        if not session.interrupts.stop_requested and (more := history.longer(plan, board, clock)):
            session.log.info(f"now the best settings for {more.pending[0].changes['train.epochs']} epochs")
            watch(session, board, clock, tuner.run_trials(session, single_trial_plan(plan), more, clock.seconds_left, best))
        elif not session.interrupts.stop_requested and plan.search_share < 1 and clock.seconds_left() > history.ACTOR_SECONDS:
            rest = history.unfinished_history(session.run.folder, plan, session.dataset, board)
            watch(session, board, clock, tuner.run_trials(session, plan, rest, clock.seconds_left, best))
        return conclude.finish(session, board, clock)


def watch(session: "Session", board: "Leaderboard", clock: "SearchClock", events: "Iterator[Event]") -> None:
    """Account for what trials report, and show it."""
    for event in events:
        row = board.take(event, clock.elapsed_seconds())
        clock.update(board)
        if event.ended:
            session.log.clear()
            session.log.info(board.line(row))
        if session.log.is_live:
            session.log.show(board.table())


if __name__ == "__main__":
    main(VERB, tune)
