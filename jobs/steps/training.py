"""One training from start to result: in this process, or on Ray workers."""

from classifier.api.missing import Missing
from classifier.api.training import calibrate_training, write_training_results
from classifier.api.unlabelled import GAIN, explain_unmeasured, measure_unlabelled
from classifier.evaluation.calibrate import describe_calibration, describe_folds
from classifier.report import run_page
from classifier.report.numbers import format_summary
from classifier.report.sections.unlabelled_section import describe_gain, is_harm
from classifier.runs.recorder import record_training
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.runtime.timing import Deadline
from classifier.training.loop import StepProgress
from classifier.training.progress import describe_fusion, format_duration

from ..cli.environment import command_line
from ..cli.verb import EXIT_DONE, EXIT_INTERRUPTED
from ..launch import run_storage, torchrun
from .scores_table import tabulate_importance
from .session import Session, resume_command


def train_here(session: Session) -> str | None:
    """Train in this process, with the other ranks if torchrun launched them; why it stopped early, or None."""
    if torchrun.world_size() == 1:
        return train_in_process(session, ProcessGroup.current(pick_device(session.experiment.train.device)))
    with torchrun.join_workers(session.experiment, session.run.folder) as (group, *_):
        return train_in_process(session, group)


def train_in_process(session: Session, group: ProcessGroup, deadline: Deadline | None = None) -> str | None:
    """Train in this process and log each epoch; why it stopped early, or None.

    A missed deadline stops the training as the user's Ctrl-C does."""
    stopped = None

    def report_step(step: StepProgress) -> None:
        session.log.show_step(step)
        if deadline is not None:
            deadline.update(step.step / (step.steps // step.epochs), step.epochs)

    for epoch in record_training(
        session.run,
        session.experiment,
        session.dataset,
        group=group,
        should_stop=lambda: session.interrupts.stop_requested or (deadline is not None and deadline.is_missed),
        on_step=report_step,
    ):
        session.log.log_epoch(epoch.row(), session.experiment.train.epochs)
        stopped = epoch.stopped
    return stopped


def train_on_ray(session: Session) -> str | None:
    """Train on Ray workers; why it stopped early, or None."""
    from ..launch import workers
    from ..launch.cluster import connect, refuse_unplaceable, refuse_unshared

    session.log.begin_phase("starting Ray")
    refuse_unplaceable(session.experiment.workers, connect())
    refuse_unshared(session.run)
    session.log.begin_phase(f"starting {session.experiment.workers.count} workers")
    for row in workers.train(session.run, session.requested, should_stop=lambda: session.interrupts.stop_requested):
        session.log.log_epoch(row, session.experiment.train.epochs)
    return "asked" if session.interrupts.stop_requested else None


def finish_training(session: Session, stopped: str | None) -> int:
    """Calibrate, write result.json, curves and report, log how it went; the exit code."""
    run, log, interrupted = session.run, session.log, stopped == "asked"
    missing, loaded, gain = Missing(), None, None
    if not interrupted:
        log.begin_phase("calibrating")
        loaded = calibrate_training(run, session.dataset, missing)
    if not interrupted and session.dataset.unlabelled is not None:
        log.begin_phase("learning from the labels alone, to compare")
        with missing.note(GAIN, resume_command(session.kind, run.folder)):
            asked = session.interrupts
            gain = measure_unlabelled(run, session.experiment, session.dataset, lambda: asked.stop_requested)
    if loaded is not None and session.experiment.workers.count > 1:
        with missing.note("the calibrated bundle in the storage", resume_command(session.kind, run.folder)):
            run_storage.upload_bundle(run)
    log.begin_phase("writing the report")
    status = "stopped" if interrupted else "finished"
    fields = write_training_results(run, session.kind, status, loaded, missing, gain)
    if loaded is not None:
        log.info(describe_calibration(loaded.bundle))
    if gain is not None:
        (log.warning if is_harm(gain) else log.info)(describe_gain(gain))
    elif why := explain_unmeasured(session.experiment, session.dataset):
        log.info(f"note: {why}")
    if fields.get("fusion"):
        log.info(describe_fusion(fields["fusion"]))
        for table in tabulate_importance(fields["fusion"], "validation"):
            log.info(table)
    for line in missing.describe():
        log.warning(line)
    validation = fields["validation"]
    score = format_summary("validation", validation, 2) if validation else "no validation images"
    if loaded is not None and (by_folds := describe_folds(loaded.bundle)):
        score += f", {by_folds}"
    log.info(f"{status} after {format_duration(run.seconds)}: {score}")
    speed = f", {fields['images_per_second']:,.0f} images/s" if fields["images_per_second"] else ""
    log.info(f"{fields['parameters']:,} parameters{speed}")
    if fields["input_wait"] is not None:
        log.info(f"waiting for images took {fields['input_wait']:.1%} of the time in training steps")
    if interrupted:
        log.next_step("resume it", resume_command(session.kind, run.folder))
    elif why := session.dataset.why_untested:
        log.info(f"not tested: {why}")
    else:
        log.next_step("test it once", command_line("evaluate", run.folder))
    log.next_step("report", run.folder / run_page.NAME)
    log.info(str(run.folder))
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE
