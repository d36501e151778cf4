"""Search settings: python jobs/tune.py --data.path photos/ --search.trials 16 --search.minutes 30

Each trial is a training of its own, stopped early where it falls behind. The search ends with a table, `best.yaml` (the
winner's whole experiment), `trials.parquet`, and the winner's bundle, tested once on the held-out test split.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.search.history import Clock
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
    from jobs.steps import session

    if request.options.dry_run:
        from jobs.steps.dry_run import rehearse

        rehearse(request)
        return EXIT_DONE
    with session.open_session(VERB.name, request) as work:
        plan = make_plan(work.requested, work.dataset, work.run.folder, resumed=bool(request.options.resume))
        work.run.write_requested_experiment(plan.experiment)
        past = history.past_of(work.run.folder, plan, work.dataset)
        for line in (*history.changed_since(work.run.folder, work.dataset), *plan.lines()):
            work.log.info(line)
        board = Leaderboard(work.run, plan)
        best = board.best_epochs
        clock = history.Clock(work.run, plan)
        watch(work, board, clock, tuner.run_trials(work, plan, past, lambda: clock.left(plan.search_share), best))
        if not work.interrupts.requested and (more := history.longer(plan, board, clock)):
            work.log.info(f"now the best settings for {more.first[0].changes['train.epochs']} epochs")
            watch(work, board, clock, tuner.run_trials(work, single_trial_plan(plan), more, clock.left, best))
        elif not work.interrupts.requested and plan.search_share < 1 and clock.left() > history.ACTOR_SECONDS:
            rest = history.rest(work.run.folder, plan, work.dataset, board)
            watch(work, board, clock, tuner.run_trials(work, plan, rest, clock.left, best))
        return conclude.finish(work, board, clock)


def watch(work: "Session", board: "Leaderboard", clock: "Clock", events: "Iterator[Event]") -> None:
    """Account for what trials report, and show it."""
    for event in events:
        row = board.take(event, clock.seconds())
        clock.hear(board)
        if event.ended:
            work.log.clear()
            work.log.info(board.line(row))
        if work.log.is_live:
            work.log.show(board.table())


if __name__ == "__main__":
    main(VERB, tune)
