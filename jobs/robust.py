"""Measure robustness: python jobs/robust.py runs/NAME

Scores on test images corrupted by noise, blur, weather and compression, and under adversarial attacks; with --shift
PATH on a second data set of the same classes; with --unlike PATH, whether images of unknown classes are detected. The
curves go into the run's report.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveInt

from .cli.command import main
from .cli.verb import DATA_SETTINGS, OptionalRunOptions, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class RobustOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: PositiveInt = 1000
    """Number of test images to use, evenly spaced."""
    attacks: bool = True
    """Also measure adversarial attacks: FGSM and PGD."""
    shift: str | None = None
    """A second data set of the same classes: folder, archive or manifest."""
    unlike: str | None = None
    """Out-of-distribution images, of none of the model's classes, which it should detect: any folder of images, or a
    data set."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="robust",
    examples=("runs/NAME", "runs/NAME --shift phone-photos/ --unlike holiday/"),
    options=RobustOptions,
    settings=DATA_SETTINGS,
)


def robust(request: Request) -> None:
    """Measure, save robustness.json in the run that is tested, and rewrite its report."""
    from classifier.api.missing import Missing
    from classifier.api.pages import write_pages
    from classifier.bundle import bundle
    from classifier.evaluation.test_split import owner_of
    from classifier.runs.recorder import result_fields
    from classifier.runtime.distributed import pick_device
    from classifier.runtime.threads import use_free_cores

    from .steps import robustness
    from .steps.output_run import open_run_on_request

    options, owner = request.options, owner_of(request.options.run)
    loaded = bundle.load(options.run, pick_device(options.device))
    data_path = loaded.bundle.experiment["data"]["path"]
    with (
        open_run_on_request(options, data_path, is_needed=not owner) as (run, log),
        use_free_cores(request.load, log.info, "OMP_NUM_THREADS"),
    ):
        scores = robustness.measure(loaded, options, request.changes, log)
        folders = [folder for folder in (run and run.folder, owner) if folder]
        robustness.save(scores, folders)
        if run:
            run.write_result(VERB.name, "finished", **result_fields(options.run, loaded), robustness=scores)
        missing = Missing()
        page = write_pages(owner, missing) if owner else None  # before output whose reader may have ended
        for line in robustness.describe(scores):
            log.info(line)
        if page:
            log.info(f"report: {page}")
        for line in missing.describe():
            log.warning(line)
        log.info(str(folders[0]))


if __name__ == "__main__":
    main(VERB, robust)
