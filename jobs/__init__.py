"""The verbs, one file each: `python jobs/VERB.py --help`, or `classifier VERB --help` where it is installed.

A search from Python is here, as only this package knows Ray: `from classifier_jobs import run_search`.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifier.api.run import Run

__all__ = ["run_search"]


def run_search(
    path: str | os.PathLike[str] | None = None,
    *,
    minutes: float | None = None,
    trials: int | None = None,
    recipe: str | None = None,
    experiment: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    name: str | None = None,
    out: str | os.PathLike[str] = "runs",
    storage: str | None = None,
    trust: Sequence[str] = (),
    **settings: Any,
) -> "Run":
    """Search for the best settings on the images at `path`, and save the best model as a run, which is returned.

    The same as the verb tune: on the Ray cluster at RAY_ADDRESS, or on one that is started on this machine. minutes,
    trials: the budget, `search.minutes` and `search.trials`. recipe, experiment: a named recipe and a YAML file that
    overrides it. resume: the folder of an earlier search to go on with. storage, trust: see the flags --storage and
    --trust. settings: by dotted name. The winner is tested once: `run.test()` reads its scores, `run.trials` the table
    of trials. Ctrl-C ends the search with the best model so far, which is not tested; its status is then "stopped".

    ClassifierError for settings, data or models that cannot be searched.

    >>> run = run_search("digits", trials=2, **{"train.epochs": 1, "model.name": "cnn"})
    >>> run.trials.num_rows
    2
    """
    from .cli.environment import setup

    setup()
    from classifier.api.run import Run
    from classifier.storage.session_folder import refuse_lost_results

    from .cli.verb import Request, TrainingOptions
    from .steps.session import open_session
    from .tune import search

    def text(value: str | os.PathLike[str] | None) -> str | None:
        return None if value is None else os.fspath(value)

    given = {"data.path": text(path), "search.minutes": minutes, "search.trials": trials}
    changes = settings | {setting: value for setting, value in given.items() if value is not None}
    options = TrainingOptions(
        name=name,
        out=os.fspath(out),
        recipe=recipe,
        experiment=text(experiment),
        resume=text(resume),
        storage=storage,
        trust=tuple(trust),
    )
    request = Request(options, changes)
    request.trust_named_models()
    refuse_lost_results(
        options.out, resume=options.resume, storage=storage, fix="out to a folder outside it, or storage"
    )
    with open_session("tune", request) as session:
        search(session, resumed=resume is not None)
    return Run(session.run.folder)
