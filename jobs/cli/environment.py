"""The process's environment: what Ray reads when it is imported, and where this user's token and the verbs live."""

import os
from pathlib import Path

VERBS = Path(__file__).resolve().parents[1]
"""The folder of the verbs, jobs/; the packages are importable from its parent."""

TOKEN = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")

_RAY_DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what they mean to the driver
    "RAY_AIR_NEW_OUTPUT": "0",  # or Tune prints tables of its own, whatever its verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100",  # the searcher decides how many; Tune would start them one by one
    "TUNE_WARN_THRESHOLD_S": "30",
}


def setup() -> None:
    """Set what Ray reads from the environment as it is imported; call it first. What the user has set stays."""
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Ray presents this user's token by itself only to a cluster that it starts, not to one that it joins.
    if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
