"""Calibrate a model again: python jobs/calibrate.py runs/NAME --precision 0.95

Every training ends with a calibration on its validation images. Use this for prediction sets with another coverage, or
for a threshold per class below which predict is not sure.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import DATA_SETTINGS, OptionalRunOptions, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    coverage: float | None = None
    """Coverage of prediction sets: how often the set shown for an unsure prediction holds the true class. If unset,
    0.9 or the mean of the model's accuracy and 1, whichever is larger."""
    precision: float | None = None
    """Set a threshold per class so that predictions above it have at least this precision."""
    recall: float | None = None
    """Set a threshold per class so that predictions above it have at least this recall."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="calibrate",
    examples=("runs/NAME --precision 0.95", "runs/NAME --coverage 0.99"),
    options=CalibrateOptions,
    settings=DATA_SETTINGS,
)


def calibrate(request: Request) -> None:
    """Calibrate, save the calibration in the bundle, and log it."""
    from classifier.api.missing import CALIBRATION, Missing
    from classifier.api.pages import write_pages
    from classifier.bundle import bundle
    from classifier.bundle.predictions import read_probabilities
    from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
    from classifier.evaluation.test_split import owner_of
    from classifier.evaluation.training_data import load_training_data
    from classifier.report.sections import label_sections, model_sections
    from classifier.runs.folder import PREDICTIONS
    from classifier.runs.recorder import result_fields
    from classifier.runtime.threads import use_free_cores

    from .steps.output_run import open_run_on_request

    options, about = request.options, bundle.read(request.options.run)
    owner = owner_of(options.run)
    with (
        open_run_on_request(options, about.experiment["data"]["path"], is_needed=not owner) as (run, log),
        use_free_cores(request.load, log.info, "OMP_NUM_THREADS"),
    ):
        dataset = load_training_data(options.run, about, options.data, request.changes)
        targets = {"coverage": options.coverage, "precision": options.precision, "recall": options.recall}
        folder = run.folder if run else owner
        assert folder  # a bundle without a run needs one of its own
        loaded = calibrate_saved_bundle(options.run, dataset, folder, device=options.device, **targets)
        if run:
            calibration = loaded.bundle.calibration
            run.write_result(VERB.name, "finished", **result_fields(options.run, loaded), calibration=calibration)
        missing = Missing()
        missing.mark_made(CALIBRATION)
        page = write_pages(owner, missing) if owner else None  # before output whose reader may have ended
        log.info(describe_calibration(loaded.bundle))
        sections = label_sections if about.task == "multilabel" else model_sections
        predictions = read_probabilities(folder / PREDICTIONS["validation"])
        for line in sections.describe_thresholds(loaded.bundle, *predictions):
            log.info(f"  {line}")
        if page:
            log.info(f"report: {page}")
        for line in missing.describe():
            log.warning(line)
        log.info(str(folder))


if __name__ == "__main__":
    main(VERB, calibrate)
