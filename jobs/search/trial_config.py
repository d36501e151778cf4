"""What a trial changes of the search's experiment, and the files in its folder that say so."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.config.documents import read_json
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, RunError
from classifier.runs.schema import TrialSample
from classifier.storage.atomic import write_atomically


@dataclass(frozen=True)
class TrialConfig:
    """What one trial changes of the search's experiment, and where that came from. Fields are the keys of sample.json.

    source: recipe, portfolio, start_from, grid, drawn, longer or resumed. drawn: the values that Optuna, or the grid,
    gave each setting of the space. number: the order in which trials are started.
    """

    changes: dict[str, Any]
    source: str
    drawn: dict[str, Any] | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """The name of the trial's folder."""
        return trial_name(self.changes)

    def write(self, trials: Path) -> None:
        """Create the trial's folder in `trials`, and write sample.json there."""
        folder = trials / self.name
        folder.mkdir(parents=True, exist_ok=True)
        document = {"number": self.number, "source": self.source, "changes": self.changes, "drawn": self.drawn}
        write_atomically(folder / "sample.json", json.dumps(document, indent=1) + "\n")


def trial_name(changes: dict[str, Any]) -> str:
    """8 hex digits; equal changes, in any order, are one trial."""
    return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]


def is_trial_name(name: str) -> bool:
    """Whether it may be a trial's: anything else in the folder of trials is left alone."""
    return re.fullmatch("[0-9a-f]{8}", name) is not None


def read_trial_configs(trials: Path) -> list[TrialConfig]:
    """The configurations of all trials of a search, in the order in which they were started."""
    samples = [_read_sample(path) for path in trials.glob("*/sample.json")]
    return sorted(samples, key=lambda config: config.number)


def _read_sample(path: Path) -> TrialConfig:
    sample = read_json(path, TrialSample, "delete the trial")
    changes = _check_changes(sample["changes"], path)
    return TrialConfig(changes, sample["source"], drawn=sample["drawn"], number=sample["number"])


def _check_changes(changes: dict[str, Any], path: Path) -> dict[str, Any]:
    """RunError unless these are settings with values that they can have."""
    try:
        Experiment().override_all(changes)
    except ConfigError as error:
        raise RunError(f"{path} is corrupted ({error}): delete the trial") from None
    return changes


def write_changes(trial: Path, changes: dict[str, Any]) -> None:
    """Write changes.json: for a member of a population, whose settings change as it trains; others have sample.json."""
    write_atomically(trial / "changes.json", json.dumps(changes) + "\n")


def read_changes(trial: Path) -> dict[str, Any] | None:
    """What the trial in this folder changes; None if it was not started.

    Versions before this one wrote changes.json for every trial, with the same changes as sample.json.
    """
    if (sample := trial / "sample.json").exists():
        return _read_sample(sample).changes
    changes = trial / "changes.json"
    return _check_changes(read_json(changes, dict[str, Any]), changes) if changes.exists() else None


def list_changes(changes: dict[str, Any]) -> str:
    """Changes in few words: settings such as model.name need only their value."""
    values = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in changes.items()}
    words = [v if n.endswith(".name") else f"{n.rpartition('.')[2]} {v}" for n, v in values.items()]
    return "  ".join(words) or "the recipe"


def remove_duplicates(configs: list[TrialConfig]) -> list[TrialConfig]:
    """Without repetitions: the first configuration of each trial, in order."""
    first: dict[str, TrialConfig] = {}
    for config in configs:
        first.setdefault(config.name, config)
    return list(first.values())
