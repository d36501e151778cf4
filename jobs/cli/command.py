"""A verb run from the command line: help, errors as one line, exit codes.

A verb's flags are its own options and the settings of its sections, each spelled as the setting (`--optimizer.lr 0.1`).
The experiment file overrides the recipe, flags override both.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from classifier.config.experiment import Experiment
from classifier.errors import ClassifierError, DivergedError
from classifier.extras import explain_missing
from classifier.storage.session_folder import STORAGE_FIX, refuse_lost_results
from classifier.storage.uri import refuse_credentials
from classifier.text import show

from .environment import setup
from .interrupts import Interrupts, answer_interrupts, ignore_interrupts
from .output import discard_output
from .parser import format_help, parse
from .verb import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, Request, TrainingOptions, Verb
from .verbs import FIRST_PHASES


def main(verb: Verb, run: Callable[[Request], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line, run the verb and exit with its code. A user error is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    setup()
    # Python processes that libraries start import nothing from the working directory, which may hold what was sent.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        if {"-h", "--help", "--help-all"} & set(argv):
            print(format_help(verb, show_all="--help-all" in argv), flush=True)
            code = EXIT_DONE
        else:
            request = parse(verb, argv)
            request.trust_named_models()
            _check(request)
            code = _run(verb, run, request)
    except ClassifierError as error:
        _complain(f"{verb.name}: {error}", *_notes(error))
        code = EXIT_FAILED if isinstance(error, DivergedError) else EXIT_USER_ERROR
    except KeyboardInterrupt as interrupt:
        code = _end_interrupted(verb, interrupt)
    except BrokenPipeError:  # the reader of our output has exited (`| head`)
        discard_output(sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception as error:
        if Interrupts.has_ended_work:  # an import that was interrupted may fail in any way
            code = _end_interrupted(verb, error)
        elif isinstance(error, ImportError) and (sentence := explain_missing(error)):
            _complain(f"{verb.name}: {sentence}", *_notes(error))
            code = EXIT_USER_ERROR
        else:
            print(show(traceback.format_exc(), keep="\n"), end="", file=sys.stderr)
            code = EXIT_FAILED
    sys.exit(code)


def _run(verb: Verb, run: Callable[[Request], int | None], request: Request) -> int:
    """Run the verb, and say that it is at work from the start; its exit code."""
    if verb.name not in FIRST_PHASES or os.environ.get("RANK", "0") != "0":  # of torchrun's processes, one speaks
        return run(request) or EXIT_DONE
    from .display import display

    answer_interrupts()
    atexit.register(display().clear)
    display().begin_phase(FIRST_PHASES[verb.name])
    try:
        return run(request) or EXIT_DONE
    finally:
        ignore_interrupts()  # a traceback would follow the last line
        display().clear()
        if display().is_live:
            display().begin_phase("closing")  # Ray needs seconds to shut down


def _end_interrupted(verb: Verb, error: BaseException) -> int:
    """Say that the verb was interrupted, and how to go on; its exit code."""
    print(f"{verb.name}: interrupted", file=sys.stderr)
    for line in _notes(error):
        print(show(line))
    return EXIT_INTERRUPTED


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way: the command that goes on with a run, and the run folder."""
    return getattr(error, "__notes__", [])


def _complain(message: str, *notes: str) -> None:
    """Print an error, folded on a terminal, and its notes, which are commands and paths, a line each."""
    from rich.console import Console

    from .display import fold

    print(fold(message, Console(stderr=True)), *map(show, notes), sep="\n", file=sys.stderr)


def _check(request: Request) -> None:
    """Refuse bad values before any work is done, and before torch is loaded."""
    if isinstance(request.options, TrainingOptions) and not request.options.resume:
        request.experiment()
    else:
        Experiment().override_all(request.changes)
    path = request.changes.get("data.path")
    is_new = not getattr(request.options, "resume", None)  # else it is explained where the data of the run were
    if is_new and isinstance(path, str) and not os.path.exists(path):
        from classifier.data.readers.detect import check_exists

        check_exists(path)
    options = request.options
    for name, uri in {"--storage": getattr(options, "storage", None), **request.changes}.items():
        if isinstance(uri, str):
            refuse_credentials(uri, name)
    if hasattr(options, "resume") and not getattr(options, "dry_run", False):  # else nothing is trained
        storage = {"storage": options.storage, "fix": STORAGE_FIX} if hasattr(options, "storage") else {}
        refuse_lost_results(options.out, resume=options.resume, **storage)
