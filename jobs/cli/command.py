"""A verb run from the command line: help, errors as one line, exit codes.

A verb's flags are its own options and the settings of its sections, each spelled as the setting (`--optimizer.lr 0.1`).
The experiment file overrides the recipe, flags override both.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from classifier.config.experiment import Experiment
from classifier.errors import ClassifierError, DivergedError

from .environment import setup
from .interrupts import answer_interrupts
from .parser import format_help, parse
from .session_folder import refuse_lost_results
from .verb import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, Request, TrainingOptions, Verb
from .verbs import FIRST_PHASES


def main(verb: Verb, run: Callable[[Request], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line, run the verb and exit with its code. A user error is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    setup()
    try:
        if {"-h", "--help", "--help-all"} & set(argv):
            print(format_help(verb, show_all="--help-all" in argv), flush=True)
            code = EXIT_DONE
        else:
            request = parse(verb, argv)
            _check(request)
            code = _run(verb, run, request)
    except ClassifierError as error:
        _complain(f"{verb.name}: {error}", *_notes(error))
        code = EXIT_FAILED if isinstance(error, DivergedError) else EXIT_USER_ERROR
    except KeyboardInterrupt as interrupt:
        print(f"{verb.name}: interrupted", file=sys.stderr)
        for line in _notes(interrupt):
            print(line)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has exited (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception:
        traceback.print_exc()
        code = EXIT_FAILED
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while Ray shuts down ends the process without a traceback
    sys.exit(code)


def _run(verb: Verb, run: Callable[[Request], int | None], request: Request) -> int:
    """Run the verb, and say that it is at work from the start; its exit code."""
    if verb.name not in FIRST_PHASES or os.environ.get("RANK", "0") != "0":  # of torchrun's processes, one speaks
        return run(request) or EXIT_DONE
    from .display import display

    answer_interrupts()
    display().begin_phase(FIRST_PHASES[verb.name])
    try:
        return run(request) or EXIT_DONE
    finally:
        display().clear()


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way: the command that goes on with a run, and the run folder."""
    return getattr(error, "__notes__", [])


def _complain(message: str, *notes: str) -> None:
    """Print an error, folded on a terminal, and its notes, which are commands and paths."""
    from rich.console import Console

    from .display import fold

    print(fold(message, Console(stderr=True)), *notes, sep="\n", file=sys.stderr)


def _check(request: Request) -> None:
    """Refuse bad values before any work is done, and before torch is loaded."""
    if isinstance(request.options, TrainingOptions) and not request.options.resume:
        request.experiment()
    else:
        Experiment().override_all(request.changes)
    refuse_lost_results(request.options)
