"""The verbs: one file each, run as `python jobs/VERB.py`."""

import os
from pathlib import Path

# Ray reads its environment as it is imported, which is after this wherever it happens.
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what they mean to the driver
    "RAY_AIR_NEW_OUTPUT": "0",  # or Tune prints tables of its own, whatever its verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100",  # the Guide says how many; Tune would have them start one by one
    "TUNE_WARN_THRESHOLD_S": "30",
}
# Ray shows this user's token by itself only to a cluster that it starts, not to one that it joins.
TOKEN = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():
    _SETTINGS["RAY_AUTH_MODE"] = "token"
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
