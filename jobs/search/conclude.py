"""The end of a search: the winner packed, trained once more if wished, tested once, and what was learned told."""

from classifier.bundle import bundle
from classifier.config.files import dump_experiment
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
from classifier.report import run_page, search_page
from classifier.runs.folder import FEATURES
from classifier.runs.recorder import result_fields, summary_scores
from classifier.storage.atomic import write_atomically
from jobs.cli.verb import EXIT_DONE, EXIT_INTERRUPTED
from jobs.launch import run_storage
from jobs.search import refit
from jobs.search.history import Clock
from jobs.search.importance import importance
from jobs.search.leaderboard import Leaderboard
from jobs.steps import runs_table, test_model
from jobs.steps.session import Session, earlier_test_reads

TRIAL_STATES = ("finished", "stopped", "unfinished", "failed")


def finish(work: Session, board: Leaderboard, clock: Clock) -> int:
    """Pack the winner, train it once more if wished, test it once, and write what the search found."""
    run, journal, interrupted = work.run, work.log, work.interrupts.stop_requested
    journal.clear()
    board.catch_up(clock.seconds())
    if interrupted and not board.has_winner:
        run.write_result(work.kind, "stopped", config=work.experiment.as_dict(), dataset=work.dataset.summary())
        journal.info(
            f"stopped before a trial came to the end of an epoch; go on: python jobs/tune.py --resume {run.folder}"
        )
        journal.info(str(run.folder))
        return EXIT_INTERRUPTED
    board.write()
    journal.info(board.table())
    winner, experiment = board.winner()
    run_storage.download_trials(run, winner.folder.name, bundle=True)
    write_atomically(run.folder / "best.yaml", dump_experiment(experiment))
    bundle.save(*bundle.load(winner.folder), run.bundle)
    parts = result_fields(winner.folder)
    selection = parts["validation"]
    if not interrupted:
        loaded = calibrate_saved_bundle(run.folder, work.dataset, run.folder)
        journal.info(describe_calibration(loaded.bundle))
    if experiment.search.final and not interrupted and (last := refit.trained(work, board, clock)):
        write_atomically(run.folder / "best.yaml", dump_experiment(last))
        trained = result_fields(run.folder / "final")
        parts = result_fields(run.folder) | {
            name: trained[name] for name in ("epochs", "images_per_second", "input_wait")
        }
    interrupted = work.interrupts.stop_requested  # it may be so since the last training
    reading = test_model.taken(run.folder, [run.folder], device=experiment.train.device, dataset=work.dataset)
    for thing in test_model.score_tables(reading.scores):
        journal.info(thing)
    status = "stopped" if interrupted else "finished"
    run.write_result(
        work.kind,
        status,
        **parts | {"test": summary_scores(reading.scores), "test_reads": earlier_test_reads(run.folder) + 1},
        winner=winner.folder.name,
        selection=selection,
        trials={state: sum(board.status(row) == state for row in board.rows.values()) for state in TRIAL_STATES},
        front=[row.trial for row in board.front()],
        importance=importance(board),
        objective=list(experiment.search.objective),
        search_seconds=board.seconds(),
    )
    search_page.write(run.folder)
    journal.info(
        f"{status} after {run.seconds:.0f} s: trial {winner.folder.name} won, validation accuracy "
        f"{selection['accuracy']:.2%}, test accuracy {reading.scores['accuracy']:.2%}"
    )
    journal.info(f"what it learned: {run.folder / search_page.NAME}")
    journal.info(f"all about the model: {run_page.write(run.folder)}")
    if (seen := run.folder / FEATURES).is_dir():
        journal.info(f"{seen}, {runs_table.size_of([seen])}, saves time where this search goes on; it may be deleted")
    journal.info(f"train it again: python jobs/train.py --experiment {run.folder / 'best.yaml'}")
    journal.info(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE
