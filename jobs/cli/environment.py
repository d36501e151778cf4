"""The process environment: variables that Ray reads on import, and the paths of its token and of the verbs."""

import io
import logging
import os
import sys
from pathlib import Path

from classifier.config.trust import trusted
from classifier.text import quote, show

from .verbs import COMMAND

VERBS = Path(__file__).resolve().parents[1]
"""Folder of the verbs: jobs/ in a checkout, classifier_jobs/ where it is installed. Its parent holds the packages."""

TOKEN = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")

_RAY_DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too, what a verb starts listens on the loopback address only
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # so that relative paths mean the same as on the driver
    "RAY_AIR_NEW_OUTPUT": "0",  # or Tune prints its own tables, whatever its verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100",  # the searcher decides how many; Tune would start them one by one
    "TUNE_WARN_THRESHOLD_S": "30",
}


def command(verb: str) -> str:
    """How this user starts a verb: by a script as this process was started, or by the installed command."""
    script = Path(sys.argv[0])
    is_script = script.suffix == ".py" and script.resolve().parent == VERBS
    return f"python {quote(script.with_name(f'{verb}.py'))}" if is_script else f"{COMMAND} {verb}"


def command_line(verb: str, *words: object) -> str:
    """How this user starts a verb with these arguments, to be pasted into a shell."""
    return " ".join([command(verb), *map(quote, [*words, *trust_options()])])


def trust_options() -> list[str]:
    """The options by which another verb may import the code that this one may."""
    return [word for path in trusted() for word in ("--trust", path)]


class _ShownFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return show(super().formatMessage(record))


def setup() -> None:
    """Prepare this process for a verb: call it before anything is printed, and before the first `import ray`.

    Sets the variables that Ray reads on import, unless the user has. What a terminal cannot encode is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:  # prints warnings on stderr
        logging.lastResort.setFormatter(_ShownFormatter())
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which ONNX Runtime starts when it is imported
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Ray sends this user's token by itself only to a cluster that it starts, not to one that it joins.
    if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
