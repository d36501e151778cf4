"""The end of a search: save the winner's bundle, refit it, test it once, and write the results."""

from classifier.api.testing import run_test
from classifier.bundle import bundle
from classifier.config.files import dump_experiment
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
from classifier.report import run_page, search_page
from classifier.runs.folder import FEATURES
from classifier.runs.recorder import result_fields, summary_scores
from classifier.storage.atomic import write_atomically
from classifier.training.progress import format_duration

from ..cli.environment import command
from ..cli.verb import EXIT_DONE, EXIT_INTERRUPTED
from ..launch import run_storage
from ..steps import runs_table
from ..steps.scores_table import describe_scores
from ..steps.session import Session, resume_command
from . import refit
from .history import SearchClock
from .importance import compute_importance
from .leaderboard import Leaderboard

TRIAL_STATES = ("finished", "stopped", "unfinished", "failed")


def finish(session: Session, board: Leaderboard, clock: SearchClock) -> int:
    """Save the winner's bundle, refit it if search.final is set, test it once, and write the results."""
    run, log, interrupted = session.run, session.log, session.interrupts.stop_requested

    def begin_phase(name: str) -> None:
        log.begin_phase(name, clock.total_seconds_left())

    begin_phase("saving the best model")
    board.catch_up(clock.elapsed_seconds())
    if interrupted and not board.has_winner:
        run.write_result(
            session.kind, "stopped", config=session.experiment.as_dict(), dataset=session.dataset.summary()
        )
        log.info("no trial has finished an epoch")
        session.say_how_to_resume()
        return EXIT_INTERRUPTED
    board.write()
    log.info(board.table())
    winner, experiment = board.winner()
    run_storage.download_trials(run, winner.folder.name, bundle=True)
    write_atomically(run.folder / "best.yaml", dump_experiment(experiment))
    bundle.save(*bundle.load(winner.folder), run.bundle)
    parts = result_fields(winner.folder)
    selection = parts["validation"]
    if not interrupted:
        begin_phase("calibrating")
        loaded = calibrate_saved_bundle(run.folder, session.dataset, run.folder)
        log.info(describe_calibration(loaded.bundle))
    if experiment.search.final and not interrupted and (last := refit.refit_winner(session, board, clock)):
        write_atomically(run.folder / "best.yaml", dump_experiment(last))
        refit_fields = result_fields(run.folder / "final")
        parts = result_fields(run.folder) | {
            name: refit_fields[name] for name in ("epochs", "images_per_second", "input_wait")
        }
    interrupted = session.interrupts.stop_requested  # perhaps during the refit
    begin_phase("testing")
    test_result = run_test(run.folder, [run.folder], device=experiment.train.device, dataset=session.dataset)
    for table in describe_scores(test_result.scores):
        log.info(table)
    status = "stopped" if interrupted else "finished"
    run.write_result(
        session.kind,
        status,
        **parts | {"test": summary_scores(test_result.scores), "test_reads": run.earlier_test_reads() + 1},
        winner=winner.folder.name,
        selection=selection,
        trials={state: sum(board.status(row) == state for row in board.rows.values()) for state in TRIAL_STATES},
        front=[row.trial for row in board.pareto_front()],
        importance=compute_importance(board),
        objective=list(experiment.search.objective),
        search_seconds=board.report_span(),
    )
    begin_phase("writing the reports")
    search_page.write(run.folder)
    page = run_page.write(run.folder)
    log.info(f"{status} after {format_duration(run.seconds)}: trial {winner.folder.name} won")
    log.info(f"validation accuracy {selection['accuracy']:.2%}, test accuracy {test_result.scores['accuracy']:.2%}")
    log.next_step("search report", run.folder / search_page.NAME)
    log.next_step("model report", page)
    if (features := run.folder / FEATURES).is_dir():
        log.info(f"{features}, {runs_table.format_size([features])}, speeds up a resumed search; it may be deleted")
    if interrupted:
        log.next_step("resume it", resume_command("tune", run.folder))
    log.next_step("train it again", f"{command('train')} --experiment {run.folder / 'best.yaml'}")
    log.info(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE
