"""The run folders in OUT as rows of a table."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from classifier.config.experiment import flatten, setting_names
from classifier.config.fields import suggest
from classifier.config.files import read_experiment
from classifier.errors import ClassifierError, ConfigError, RunError
from classifier.runs.folder import RunFolder, read_result
from classifier.runs.status import DAMAGED, read_best_epoch, read_status

COLUMNS = ("when", "name", "validation", "test", "seconds")
KEYS = ("kind", "status", "data", "name")


@dataclass(frozen=True)
class Row:
    """A run folder: what it is, how it ended and its scores."""

    folder: Path
    kind: str
    status: str
    data: str
    model: str
    validation: float | None
    test: float | None
    seconds: float | None
    when: float
    settings: dict[str, Any]

    def get(self, key: str) -> Any:
        """The value of a column, or of a setting by its dotted name."""
        return (
            self.folder.name
            if key == "name"
            else getattr(self, key, None)
            if key in (*KEYS, *COLUMNS)
            else self.settings.get(key)
        )


def find_runs(out: Path, where: Sequence[str], sort: str) -> list[Row]:
    """The runs that match `where`, sorted. ConfigError for an unknown key; RunError if there is no such folder."""
    if not out.is_dir():
        raise RunError(f"{out} is not a folder: give the parent folder of the runs as --out")
    wanted = dict(_parse_condition(word) for word in where)
    for key in (*wanted, sort):
        if key not in (*KEYS, *COLUMNS) and key not in setting_names():
            suggestion = suggest(key, (*KEYS, *COLUMNS, *setting_names()))
            raise ConfigError(f"{key}: there is no such column or setting{suggestion}")
    rows = [row for folder in sorted(out.iterdir()) if (row := _read_row(folder)) is not None]
    rows = [row for row in rows if all(_format(row.get(key)) == value for key, value in wanted.items())]
    best_first = sort in ("validation", "test")

    def order(row: Row) -> Any:
        value = row.get(sort)
        number = isinstance(value, int | float)
        return (value is None, (-value if best_first else value) if number else 0, "" if number else str(value))

    return sorted(rows, key=order)


def _parse_condition(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"--where {word}: write NAME=VALUE, such as status=finished or model.name=cnn")
    return key, value


def _format(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _read_row(folder: Path) -> Row | None:
    """None if the folder is not a run folder."""
    if not folder.is_dir() or not any(
        (folder / name).is_file() for name in ("result.json", "experiment.yaml", "run.log")
    ):
        return None
    status = read_status(folder)
    result = read_result(folder) if status != DAMAGED and (folder / "result.json").is_file() else {}
    settings = result.get("config") or {}
    try:
        settings = settings or read_experiment(folder / "experiment.yaml").as_dict()
    except ClassifierError:
        settings = {}
    validation, test = result.get("validation"), result.get("test")
    accuracy = validation["accuracy"] if validation else None
    if not validation and (best := read_best_epoch(folder)):
        accuracy = best["validation_accuracy"]
    if result.get("kind") == "crossval" and "folds" in result:
        test = {"accuracy": result["folds"]["accuracy"]["mean"]}
    flat = flatten(settings)
    kind = result.get("kind") or ("tune" if (folder / "asked.yaml").is_file() else "train")
    return Row(
        folder=folder,
        kind=kind,
        status=status,
        data=Path(str(flat.get("data.path", ""))).name,
        model=str(flat.get("model.name", "")),
        validation=accuracy,
        test=test["accuracy"] if test else None,
        seconds=result.get("seconds"),
        when=folder.stat().st_mtime,
        settings=flat,
    )


def make_table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "verb", "data", "model"):
        table.add_column(name, overflow="fold")
    for name in ("validation", "test", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("ended")
    table.add_column("when")
    for row in rows:
        scores = ("" if value is None else f"{value:.2%}" for value in (row.validation, row.test))
        seconds = "" if row.seconds is None else f"{row.seconds:,.0f}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.when))
        table.add_row(row.folder.name, row.kind, row.data, row.model, *scores, seconds, row.status, when)
    return table


def format_size(folders: Iterable[Path]) -> str:
    total = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    return f"{total / 1e6:,.1f} MB"


def delete_runs(rows: Sequence[Row]) -> Iterator[str]:
    """Delete the runs and yield a line for each. A run that a process still works on is kept."""
    for row in rows:
        try:
            RunFolder(row.folder)._acquire_lock().discard()
            yield f"deleted {row.folder}"
        except RunError as error:
            yield f"kept: {error}"
