"""The experiment of a command line, whose recipe may be chosen by the images."""

import contextlib
from pathlib import Path

from classifier.api.choice import choose
from classifier.config.experiment import Experiment
from classifier.runtime.threads import use_free_cores

from ..cli.console import RunLog
from ..cli.verb import Request


def use_cores(request: Request, log: RunLog) -> contextlib.AbstractContextManager[None]:
    """Compute with as many threads as the user has set, or else as cores are free, as a training does."""
    threads = request.given.get("train.threads")
    return use_free_cores(request.load, log.info, "--train.threads", threads=threads)


def request_experiment(
    request: Request, log: RunLog, features: Path | None = None, *, in_steps: bool = False
) -> Experiment:
    """The experiment of a request. The recipe `auto` is chosen now, which the log is told.

    features: folder that gets the backbone's features, if any. in_steps: a linear probe will not do, since
    settings of its training are varied, or the training is interrupted.
    """
    if not request.is_auto:
        return request.experiment()
    log.begin_phase("choosing the recipe")
    choice = choose(request.given, features=features, say=log.info, progress=log.progress_bar)
    for line in choice.lines:
        log.info(line)
    return request.experiment(choice.base if in_steps else choice.experiment)
