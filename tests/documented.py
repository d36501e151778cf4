"""The commands in documentation: which verbs, with which flags."""

import importlib
import re
from collections.abc import Iterator

from jobs.cli.verbs import SUMMARIES

# `classifier VERB` or `python jobs/VERB.py`, and the rest of its line; a line may go on after a backslash.
START = r"(?:\bjobs/(\w+)\.py|(?<![\w/-])classifier ([a-z]+))\b"
COMMAND = re.compile(START + r"((?:\\\n#?|(?! jobs/| classifier )[^#|`;\n])*)")
FLAG = re.compile(r"(?<![\w-])--([a-zA-Z][\w.]*)")


def commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """The verbs that are run in a text, each with its flags."""
    for script, verb, words in COMMAND.findall(text):
        yield script or verb, set(FLAG.findall(words))


def flags_of(verb: str) -> set[str]:
    """Every flag of a verb, without its dashes."""
    assert verb in SUMMARIES, f"there is no verb {verb}"
    return {*importlib.import_module(f"jobs.{verb}").VERB.flags, "help", "help_all"}
