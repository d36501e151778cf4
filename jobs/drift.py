"""Have the images changed? python jobs/drift.py runs/NAME captured/

Compares images, or the answers that a server or predict has kept, with what the model said of its validation images:
tests at one level, the shares of the classes, the accuracy that is to be expected without labels, and the images that
differ most. No label is needed.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.fields import NonNegativeFloat, PositiveInt
from classifier.errors import ConfigError

from .cli.command import main
from .cli.verb import DATA_SETTINGS, EXIT_ALARM, EXIT_DONE, Options, Request, Verb, positional

if TYPE_CHECKING:
    from classifier.bundle.document import Bundle
    from classifier.drift.window import Window


@dataclass(frozen=True, kw_only=True)
class DriftOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: tuple[str, ...] = positional(
        "Answers in Parquet, of serve --capture or predict --answers --probabilities; or images, as of predict."
    )
    level: float = 0.05
    """At most this share of windows without drift raise an alarm."""
    min_drop: NonNegativeFloat = 0.0
    """Raise an alarm only if the expected accuracy falls by so many points; 0: for any drift."""
    limit: PositiveInt = 10_000
    """Number of images or answers to compare: the newest of a log, else evenly spaced."""
    data: str | None = None
    """Path of the data set, for a model of an earlier version, which holds no reference."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="drift",
    examples=("runs/NAME captured/NAME", "runs/NAME new-photos/ --level 0.01", "runs/NAME captured/NAME --min_drop 3"),
    options=DriftOptions,
    settings=DATA_SETTINGS,
)


LIMITS = ("data.max_pixels", "data.max_bytes", "data.max_seconds")


def drift(request: Request) -> int:
    """Measure, write drift.html and drift.json, and say what was found; an alarm is exit code 3."""
    from classifier.bundle import bundle as bundles
    from classifier.drift import describe
    from classifier.drift.measure import measure_drift
    from classifier.drift.open_reference import open_reference
    from classifier.metrics.decisions import Calibration
    from classifier.report import drift_page
    from classifier.runtime.threads import use_free_cores
    from classifier.storage.atomic import write_atomically

    from .steps.output_run import open_run

    options, settings = request.options, Experiment().override_all(request.changes).data
    if not 0 < options.level < 1:
        raise ConfigError(f"--level {options.level:g}: must be between 0 and 1, for example 0.05")
    with (
        open_run(options, options.images[0]) as (run, log),
        use_free_cores(request.load, log.info, "OMP_NUM_THREADS"),
    ):
        bundle = bundles.read(options.run)
        calibration = Calibration.from_dict(bundle.calibration) if bundle.calibration else None
        reference, notes = open_reference(options.run, options.device, options.data, request.changes)
        window = _open_window(request, bundle)
        found = measure_drift(reference, window, bundle.class_names, calibration, bundle.columns, level=options.level)
        notes = [*notes, *window.notes, *found.notes]
        is_alarm = describe.is_alarm(found, options.min_drop / 100)
        document = {"is_alarm": is_alarm, "min_drop": options.min_drop}
        document |= describe.to_document(found, reference, bundle.class_names, window.ids, notes)
        write_atomically(run.folder / "drift.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
        page = drift_page.write(
            run.folder / drift_page.NAME,
            drift=found,
            reference=reference,
            window=window,
            class_names=bundle.class_names,
            notes=notes,
            max_pixels=settings.max_pixels,
            max_seconds=settings.max_seconds,
        )
        run.write_result(VERB.name, "finished", drift=found.is_found, alarm=is_alarm)
        log.info(describe.describe_reference(reference))
        for note in notes:
            log.warning(f"note: {note}")
        for line in describe.describe_drift(found, bundle.class_names):
            log.info(line)
        if found.is_found and not is_alarm:
            log.info(f"no alarm: the expected accuracy falls by less than {options.min_drop:g} points (--min_drop)")
        log.info(f"report: {page}")
        log.info(str(run.folder))
    return EXIT_ALARM if is_alarm else EXIT_DONE


def _open_window(request: Request, bundle: "Bundle") -> "Window":
    """Read the answers of a log, or answer images in the way in which the reference was computed."""
    from classifier.bundle.predictor import Predictor
    from classifier.drift.answer_log import is_answer_log, read_answers
    from classifier.drift.images import answer_window
    from classifier.evaluation.served import answers_in_int8

    options = request.options
    logs = [word for word in options.images if is_answer_log(word)]
    if not logs:
        limits = {name.removeprefix("data."): value for name, value in request.changes.items() if name in LIMITS}
        engine = "onnx" if answers_in_int8(options.run) else "torch"
        predictor = Predictor(options.run, device=options.device, engine=engine, **limits)
        outside = Experiment().override_all(request.changes).data.outside
        return answer_window(predictor, options.images, options.limit, outside=outside)
    if len(options.images) > 1:
        raise ConfigError(f"{logs[0]} holds answers: give it alone, or the folder of several such files")
    return read_answers(logs[0], bundle, options.limit)


if __name__ == "__main__":
    main(VERB, drift)
