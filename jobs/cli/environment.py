"""The process environment: variables that Ray reads on import, and the paths of its token and of the verbs."""

import os
from pathlib import Path

VERBS = Path(__file__).resolve().parents[1]
"""Folder of the verbs, jobs/. The packages are importable from its parent."""

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


def setup() -> None:
    """Set the variables that Ray reads on import, unless the user has; call it before the first `import ray`."""
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Ray sends this user's token by itself only to a cluster that it starts, not to one that it joins.
    if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
