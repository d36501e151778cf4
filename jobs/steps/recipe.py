"""The experiment of a command line, whose recipe may be chosen by the images."""

from pathlib import Path

from classifier.api.choice import choose
from classifier.config.experiment import Experiment

from ..cli.console import RunLog
from ..cli.verb import Request


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
