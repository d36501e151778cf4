"""The run folder of a verb that does not train: it holds what the verb has found, and is gone if the verb fails."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from classifier.runs.folder import RunFolder

from ..cli.console import RunLog
from ..cli.verb import DEFAULT_OUT, OptionalRunOptions, Options


@contextlib.contextmanager
def open_run(options: Options, path: str, *, keep: bool = False) -> Iterator[tuple[RunFolder, RunLog]]:
    """Open a run folder for a verb that does not train; it is removed if the verb fails, unless `keep`.

    path: the data set's, after which a run without a name is named.
    """
    out, name = options.out, options.name
    run = RunFolder.create(out, name) if name else RunFolder.create_numbered(out, path)
    try:
        with RunLog(run.folder / "run.log") as log:
            yield run, log
    except BaseException:
        if not keep:
            run.discard()
        raise
    finally:
        run.close()


@contextlib.contextmanager
def open_run_on_request(
    options: OptionalRunOptions, path: str, *, is_needed: bool = False
) -> Iterator[tuple[RunFolder | None, RunLog]]:
    """Open a run folder as `open_run`, but only if --name or --out asks for one or it is needed; else None."""
    if is_needed or options.name or options.out:
        with open_run(Options(name=options.name, out=options.out or DEFAULT_OUT), path) as opened:
            yield opened
    else:
        with RunLog(Path(os.devnull)) as log:
            yield None, log
