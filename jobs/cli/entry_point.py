"""The command `classifier VERB ...`: the same as `python jobs/VERB.py ...`."""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from .verbs import COMMAND, SUMMARIES, VERB_GROUPS

EXIT_USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the verb that the first argument names, and exit with its code."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help") and not rest:
        print(describe_verbs())
        sys.exit(0)
    if verb == "--version":
        from classifier.version import __version__

        print(f"{COMMAND} {__version__}")
        sys.exit(0)
    if verb == "help":
        verb, rest = rest[0], ["--help"]
    if verb not in SUMMARIES:
        from classifier.config.fields import suggest

        hint = suggest(verb, SUMMARIES) or f"; see {COMMAND} --help"
        print(f"{COMMAND}: there is no verb {verb!r}{hint}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    from .command import main as run_verb

    module = importlib.import_module(f"..{verb}", __package__)
    run_verb(module.VERB, getattr(module, verb), rest)


def describe_verbs() -> str:
    """The help page: every verb with its summary, in groups."""
    lines = [
        f"usage: {COMMAND} VERB [ARGUMENT ...]",
        "",
        "Train, tune and test image classifiers, from a folder to a Ray cluster.",
    ]
    for group, verbs in VERB_GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<11}{summary}" for name, summary in verbs.items())]
    lines += [
        "",
        f"{COMMAND} VERB --help    what a verb does: examples, and its common settings",
        f"{COMMAND} train photos/  a first model from a folder with a subfolder per class",
    ]
    return "\n".join(lines)
