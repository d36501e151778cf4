"""What documentation says: its code, and the commands in it with their flags."""

import importlib
import re
from collections.abc import Iterator

from jobs.cli.verbs import SUMMARIES

# `classifier VERB` or `python jobs/VERB.py`, and the rest of its line; a line may go on after a backslash.
START = r"(?:\bjobs/(\w+)\.py|(?<![\w/-])(?<!from )classifier ([a-z]+))\b"
COMMAND = re.compile(START + r"((?:\\\n#?|(?! jobs/| classifier )[^#|`;\n])*)")
FLAG = re.compile(r"(?<![\w-])--([a-zA-Z](?:[\w.-]*\w)?)")


def code(markdown: str) -> str:
    """The blocks and spans of code in a text."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w+\n.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", prose)])


def flags(text: str) -> set[str]:
    """The flags in a text, as settings are spelled, without their dashes."""
    return {flag.replace("-", "_") for flag in FLAG.findall(text)}


def commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """The verbs that are run in a text, each with its flags."""
    for script, verb, words in COMMAND.findall(text):
        yield script or verb, flags(words)


def flags_of(verb: str) -> set[str]:
    """Every flag of a verb."""
    assert verb in SUMMARIES, f"there is no verb {verb}"
    return {*importlib.import_module(f"jobs.{verb}").VERB.flags, "help", "help_all"}
