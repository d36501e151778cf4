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
from .cli.verb import Options, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class RobustOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: PositiveInt = 1000
    """Number of test images to use, evenly spaced."""
    attacks: bool = True
    """Also measure adversarial attacks: FGSM and PGD."""
    shift: str | None = None
    """A second data set of the same classes: folder, archive or manifest."""
    unlike: str | None = None
    """Out-of-distribution images, of none of the model's classes, which it should detect."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="robust",
    examples=("runs/NAME", "runs/NAME --shift phone-photos/ --unlike holiday/"),
    options=RobustOptions,
)


def robust(request: Request) -> None:
    """Measure, save robustness.json in the run that is tested, and rewrite its report."""
    from classifier.bundle import bundle
    from classifier.runs.recorder import result_fields
    from classifier.runtime.distributed import pick_device

    from .steps import robustness
    from .steps.session import open_run

    options = request.options
    with open_run(VERB.name, options, subject=options.run) as (run, log):
        loaded = bundle.load(options.run, pick_device(options.device))
        scores = robustness.measure(loaded, options, log)
        for line in robustness.save(options.run, run.folder, scores):
            log.info(line)
        run.write_result(VERB.name, "finished", **result_fields(options.run, loaded), robustness=scores)
        log.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, robust)
