"""Make a model smaller and faster: python jobs/compress.py runs/NAME --max-loss 0.5

Int8, pruned and distilled models are tried, timed in turns with the original on this machine (ONNX Runtime), and
compared with it on the same validation images, or by the folds of a linear probe; never on the test split. The fastest
whose 95 % interval of the loss ends at --max-loss or below is saved as a run of its own, calibrated again and exported.
The given run is not changed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveFloat, PositiveInt, Range

from .cli.command import main
from .cli.verb import DATA_SETTINGS, EXIT_DONE, EXIT_INTERRUPTED, Options, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class CompressOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.", default="")
    max_loss: Annotated[float, Range(0, 100)] = 0.5
    """Largest loss of accuracy, in percentage points, that is allowed."""
    steps: tuple[Literal["int8", "views", "prune", "distill", "qat"], ...] = ("int8", "prune", "distill", "qat")
    """What is tried. int8: 8-bit integers; views: no average over the mirrored image (of augment.test_flip); prune:
    fewer channels; distill: smaller networks; qat: training for int8, where int8 loses too much."""
    minutes: PositiveFloat | None = None
    """Start no training after this many minutes, and stop one that is under way. If unset, all are run."""
    epochs: PositiveInt | None = None
    """Epochs of each training. If unset, the run's own; 20 for a linear probe."""
    students: tuple[str, ...] = ()
    """Networks to distill into. If unset, two of the project's own that are faster than the model here."""
    teacher: tuple[str, ...] = ()
    """Runs or bundles that the trainings learn from; several are averaged. If unset, the model itself."""
    unlabelled: str | None = None
    """Folder of images without labels, from which the trainings learn the teacher's answers."""
    threads: PositiveInt = 1
    """Threads of ONNX Runtime while models are timed."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""
    resume: str | None = None
    """Go on with this earlier compression; its trainings continue where they were."""


VERB = Verb(
    name="compress",
    examples=(
        "runs/NAME --max-loss 0.5",
        "runs/NAME --steps int8",
        "runs/NAME --students plain7_32 --minutes 20",
        "--resume runs/NAME-2",
    ),
    options=CompressOptions,
    settings=DATA_SETTINGS,
)


def compress(request: Request) -> int:
    """Search for the fastest model, save it as a bundle, and log the table."""
    from classifier.compress.search import StoppedError

    from .steps import compression

    with compression.open_compression(VERB.name, request) as work:
        try:
            row = work.search.run()
        except StoppedError:
            work.finish_interrupted()
            return EXIT_INTERRUPTED
        work.finish(row)
        return EXIT_DONE


if __name__ == "__main__":
    main(VERB, compress)
