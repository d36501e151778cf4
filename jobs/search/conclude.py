"""The end of a search: save the winner's bundle, refit it, test it once, and write the results."""

from typing import Any

from classifier.api.missing import TEST, Missing
from classifier.api.pages import write_pages
from classifier.api.testing import run_test
from classifier.api.training import calibrate_training
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.evaluation.calibrate import describe_calibration
from classifier.report import search_page
from classifier.report.numbers import format_summary
from classifier.runs.folder import FEATURES, RunFolder
from classifier.runs.recorder import result_fields, summary_scores
from classifier.storage.atomic import write_atomically
from classifier.training.progress import format_duration

from ..cli.environment import command_line
from ..cli.verb import EXIT_DONE, EXIT_INTERRUPTED
from ..launch import run_storage
from ..steps import runs_table
from ..steps.scores_table import describe_scores
from ..steps.session import Session, resume_command
from . import refit
from .history import SearchClock
from .importance import compute_importance
from .leaderboard import Leaderboard

# The winner's experiment.
BEST = "best.yaml"
TRIAL_STATES = ("finished", "stopped", "unfinished", "failed")


def finish(session: Session, board: Leaderboard, clock: SearchClock) -> int:
    """Save the winner's bundle, refit it if search.final is set, test it once, and write the results.

    An interrupted search is not refit, and does not read the test split: it may go on, and choose another winner.
    """
    run, log, missing = session.run, session.log, Missing()
    again = resume_command(session.kind, run.folder)

    def begin_phase(name: str) -> None:
        log.begin_phase(name, clock.total_seconds_left())

    begin_phase("saving the best model")
    board.catch_up(clock.elapsed_seconds())
    if session.interrupts.stop_requested and not board.has_winner:
        run.write_result(
            session.kind, "stopped", config=session.experiment.as_dict(), dataset=session.dataset.summary()
        )
        log.info("no trial has a model yet")
        session.say_how_to_resume()
        return EXIT_INTERRUPTED
    winner, experiment = board.winner()
    fields = _save_winner(session, winner, experiment)
    selection = result_fields(winner.folder)["validation"]
    with missing.note("trials.parquet", again):
        board.write()
    log.info(board.table())
    if not session.interrupts.stop_requested:
        begin_phase("calibrating")
        if (loaded := calibrate_training(run, session.dataset, missing)) is not None:
            log.info(describe_calibration(loaded.bundle))
    if experiment.search.final and not session.interrupts.stop_requested:
        with missing.note("the refit", again):
            if (last := refit.refit_winner(session, board, clock)) is not None:
                write_atomically(run.folder / BEST, dump_experiment(last))
                refit_fields = result_fields(run.folder / "final")
                names = ("epochs", "images_per_second", "input_wait")
                fields = result_fields(run.folder) | {name: refit_fields[name] for name in names}
    interrupted = session.interrupts.stop_requested  # perhaps during the refit
    if not interrupted and len(session.dataset.test):
        begin_phase("testing")
        with missing.note(TEST, command_line("evaluate", run.folder)):
            options = {"device": experiment.train.device, "dataset": session.dataset, "missing": missing}
            test = run_test(run.folder, [run.folder], **options)
            fields["test"] = summary_scores(test.scores)
            for table in describe_scores(test.scores):
                log.info(table)
    if fusion := bundle.read(run.folder).fusion:
        fields["fusion"] = fusion
    importance = {}
    with missing.note("the importance of settings", again):
        importance = compute_importance(board)
    status = "stopped" if interrupted else "finished"
    run.write_result(
        session.kind,
        status,
        **fields,
        winner=winner.folder.name,
        selection=selection,
        trials={state: sum(board.status(row) == state for row in board.rows.values()) for state in TRIAL_STATES},
        front=[row.trial for row in board.pareto_front()],
        importance=importance,
        objective=list(experiment.search.objective),
        search_seconds=board.report_span(),
        **missing.as_field(),
    )
    begin_phase("writing the reports")
    page = write_pages(run.folder, missing)
    log.info(f"{status} after {format_duration(run.seconds)}: trial {winner.folder.name} won")
    log.info(format_summary("validation", selection, 2))
    log.info(format_summary("test", fields["test"], 2) if fields["test"] else "not tested")
    for line in missing.describe():
        log.warning(line)
    log.next_step("search report", run.folder / search_page.NAME)
    log.next_step("model report", page)
    if (features := run.folder / FEATURES).is_dir():
        log.info(f"{features}, {runs_table.format_size([features])}, speeds up a resumed search; it may be deleted")
    if interrupted:
        log.next_step("resume it", again)
    log.next_step("train it again", command_line("train", "--experiment", run.folder / BEST))
    log.info(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE


def _save_winner(session: Session, winner: RunFolder, experiment: Experiment) -> dict[str, Any]:
    """Save the winner's bundle as the search's, and best.yaml; return the bundle's fields of result.json.

    A search that is interrupted with the winner that it has ended with before keeps that one's refit and test.
    """
    run = session.run
    is_kept = session.interrupts.stop_requested and run.earlier_result().get("winner") == winner.folder.name
    if is_kept and (run.bundle / bundle.DOCUMENT).is_file():
        return result_fields(run.folder)
    run_storage.download_trials(run, winner.folder.name, bundle=True)
    bundle.save(*bundle.load(winner.folder), run.bundle)
    write_atomically(run.folder / BEST, dump_experiment(experiment))
    return result_fields(winner.folder)
