"""The run folders in OUT as rows of a table."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table

from classifier.config.experiment import flatten, setting_names
from classifier.config.fields import suggest
from classifier.config.files import read_experiment
from classifier.errors import ClassifierError, ConfigError, RunError
from classifier.runs.folder import RunFolder, read_result
from classifier.runs.names import natural_key
from classifier.runs.status import DAMAGED, read_best_epoch, read_status

COLUMNS = ("when", "name", "validation", "test", "seconds")
KEYS = ("kind", "status", "data", "name")
# Columns of the table, and in which order they are left out where they do not fit; the name stays.
JUSTIFY: dict[str, JustifyMethod] = {
    **dict.fromkeys(("run", "verb", "data", "model"), "left"),
    **dict.fromkeys(("validation", "test", "seconds"), "right"),
    **dict.fromkeys(("ended", "when"), "left"),
}
# Spaces between two columns.
GAP = 2
LEFT_OUT_FIRST = ("data", "seconds", "when", "model", "verb", "ended", "test", "validation")


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
        key = [] if number else natural_key(str(value))
        return (value is None, (-value if best_first else value) if number else 0, key, natural_key(row.folder.name))

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
        folds = result["folds"]
        test = {"accuracy": (folds.get("accuracy") or folds["subset_accuracy"])["mean"]}  # of several labels
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


def make_table(rows: Sequence[Row], width: int | None = None) -> Table:
    """A table of at most `width` characters. Columns are left out for that, and named below it; names are never cut."""
    all_cells = [_format_cells(row) for row in rows]
    columns = list(JUSTIFY)
    for name in LEFT_OUT_FIRST:
        longest = [max(cell_len(text) for text in (name, *(cells[name] for cells in all_cells))) for name in columns]
        if width is None or sum(longest) + GAP * (len(columns) - 1) <= width:
            break
        columns.remove(name)
    hidden = [name for name in JUSTIFY if name not in columns]
    caption = f"left out for lack of room: {', '.join(hidden)}" if hidden else None
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for name in columns:
        table.add_column(name, justify=JUSTIFY[name], overflow="fold")
    for cells in all_cells:
        table.add_row(*(cells[name] for name in columns))
    return table


def _format_cells(row: Row) -> dict[str, str]:
    """The text in each column."""
    validation, test = ("" if value is None else f"{value:.2%}" for value in (row.validation, row.test))
    seconds = "" if row.seconds is None else f"{row.seconds:,.0f}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.when))
    texts = (row.folder.name, row.kind, row.data, row.model, validation, test, seconds, row.status, when)
    return dict(zip(JUSTIFY, texts, strict=True))


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
