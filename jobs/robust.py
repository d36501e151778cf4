"""How a model does where the laboratory ends: python jobs/robust.py runs/NAME

The test images with noise, blur, weather and digital losses, and under attack; with --shift PATH a second data set of
the same classes, with --unlike PATH images of no class that it knows. The curves go into the run's report.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import PositiveInt  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import Options, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class RobustOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: PositiveInt = 1000
    """How many of the test images, evenly spaced."""
    attacks: bool = True
    """Attack it too: FGSM and PGD."""
    shift: str | None = None
    """A second data set of the same classes: folder, archive, manifest."""
    unlike: str | None = None
    """Images of no class that it knows, to tell from its own."""
    data: str | None = None
    """Where the data set lies now, if it has moved. Its images, labels and splits must be the same."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="robust",
    summary="Test a model under corruptions, attacks, another data set of its classes, and images of none.",
    examples=("robust.py runs/NAME", "robust.py runs/NAME --shift phone-photos/ --unlike holiday/"),
    options=RobustOptions,
)


def robust(request: Request) -> None:
    """Measure, save robustness.json in the run that is tested, and make its report anew."""
    from classifier.runs.recorder import result_fields
    from jobs.steps import robustness, session

    options = request.options
    with session.open_run(VERB.name, options, subject=options.run) as (run, journal):
        found = robustness.measured(options, journal)
        for line in robustness.kept(options.run, run.folder, found):
            journal.info(line)
        run.write_result(VERB.name, "finished", **result_fields(options.run), robustness=found)
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, robust)
