"""Calibrate a model once more: python jobs/calibrate.py runs/NAME --precision 0.95

Every training ends with a calibration on its validation images. This is for other wishes: sets of classes that hold the
right one more often, or a threshold for each class, below which predict says that it is not sure.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import Options, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    coverage: float | None = None
    """How often the right class is in the set that is told where the model is not sure. Not set: 0.9, or, where its
    first answer is right more often, a share that leaves half of its mistakes out."""
    precision: float | None = None
    """A threshold for each class: of what is taken for it, this share is right."""
    recall: float | None = None
    """A threshold for each class: of what belongs to it, this share is found."""
    data: str | None = None
    """Where the data set lies now, if it has moved. Its images, labels and splits must be the same."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="calibrate",
    summary="Learn on the validation images when the model may be believed, and keep it in the bundle.",
    examples=("calibrate.py runs/NAME --precision 0.95", "calibrate.py runs/NAME --coverage 0.99"),
    options=CalibrateOptions,
)


def calibrate(request: Request) -> None:
    """Calibrate, write it into the bundle, and say what was learned."""
    from classifier.bundle import bundle
    from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
    from classifier.evaluation.test_split import load_training_data
    from classifier.runs.recorder import result_fields
    from jobs.steps import session

    options = request.options
    with session.open_run(VERB.name, options, subject=options.run) as (run, journal):
        dataset = load_training_data(bundle.read(options.run), options.data)
        wishes = {"coverage": options.coverage, "precision": options.precision, "recall": options.recall}
        loaded = calibrate_saved_bundle(options.run, dataset, run.folder, device=options.device, **wishes)
        journal.info(describe_calibration(loaded.bundle))
        known = loaded.bundle.calibration or {}
        for name, least in zip(loaded.bundle.class_names, known["thresholds"] or (), strict=False):
            journal.info(f"  {name}: {'never taken' if least is None else f'from {least:.1%} on'}")
        run.write_result(VERB.name, "finished", **result_fields(options.run, loaded), calibration=known)
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, calibrate)
