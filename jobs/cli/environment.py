"""The process environment: variables that Ray reads on import, and the paths of its token and of the verbs."""

import os
import sys
from pathlib import Path

COMMAND = "classifier"
"""The installed command."""

VERBS = Path(__file__).resolve().parents[1]
"""Folder of the verbs: jobs/ in a checkout, classifier_jobs/ where it is installed. Its parent holds the packages."""

TOKEN = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")

_RAY_DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
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
    return f"python {script.with_name(f'{verb}.py')}" if is_script else f"{COMMAND} {verb}"


def setup() -> None:
    """Set the variables that Ray reads on import, unless the user has; call it before the first `import ray`."""
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Ray sends this user's token by itself only to a cluster that it starts, not to one that it joins.
    if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
