"""A finished or interrupted run, for people who work in Python or a notebook."""

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.api.missing import Missing
from classifier.api.pages import write_pages
from classifier.api.testing import run_test, save_test_scores
from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.config.trust import trust as allow_imports
from classifier.errors import RunError, in_short
from classifier.evaluation.test_split import TestResult, owner_of
from classifier.report import run_page
from classifier.runs.folder import read_history, read_result
from classifier.runs.status import read_status

if TYPE_CHECKING:
    import pyarrow as pa


class Report:
    """The page of a run; a notebook shows it where it is the last value of a cell."""

    def __init__(self, path: Path, height: int = 720) -> None:
        self.path, self.height = path, height

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        # Sandboxed: the page can run no script, and cannot reach the notebook.
        return f'<iframe sandbox srcdoc="{page}" width="100%" height="{self.height}" style="border: 0"></iframe>'


class Run:
    """A training or search on disk, as `train` returns it; `Run("runs/photos-3")` opens an earlier one.

    trust: the import path of a model of your own, such as ("my_nets:Net",). RunError if the folder is not a run folder.

    >>> run = classifier.Run(folder)
    >>> run.status
    'finished'
    >>> run.history.column_names[:4]
    ['epoch', 'step', 'seconds', 'lr']
    """

    def __init__(self, folder: str | Path, *, trust: Sequence[str] = ()) -> None:
        allow_imports(*trust)
        self.folder = Path(folder)
        if not (self.folder / "experiment.yaml").is_file():
            raise RunError(f"{folder} is not a run folder (it has no experiment.yaml): give OUT/NAME of an earlier run")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json. RunError if the run has not ended."""
        return read_result(self.folder)

    @property
    def status(self) -> str:
        """`running`, or how it ended: `finished`, `stopped` (by the user, or killed) or `failed` (by an error)."""
        return read_status(self.folder)

    @cached_property
    def experiment(self) -> Experiment:
        """Every setting, resolved."""
        return read_experiment(self.folder / "experiment.yaml")

    @property
    def history(self) -> "pa.Table":
        """An Arrow table with a row per epoch; `run.history.to_pandas()` is a data frame. Empty for a search."""
        import pyarrow as pa

        return pa.Table.from_pylist(read_history(self.folder))

    @property
    def report(self) -> Report:
        """The page on the model, written anew: how good it is, where it fails, how far to trust it."""
        return Report(run_page.write(self.folder))

    @property
    def trials(self) -> "pa.Table":
        """A search's trials, best first: an Arrow table with a row per trial. RunError if it is not a search."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / "trials.parquet"
        if not path.is_file():
            raise RunError(f"{self.folder} has no {path.name}: it is not a search, or has not ended")
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{path} is corrupted ({in_short(error, 160)}): resume the search") from None

    def test(
        self, *, again: bool = False, data_path: str | None = None, device: str = "auto", **data_settings: Any
    ) -> TestResult:
        """Score the model on the held-out test split, once; later calls return the saved scores.

        again: evaluate the split again, which is counted in result.json. data_path: where the data set is, if it has
        moved. data_settings: what only you may choose, such as **{"data.max_pixels": 10**9}. DataError if there are no
        test images; RunError if the data set has changed or there is no model.

        >>> run.test().accuracy > 0.5
        True
        """
        owner = owner_of(self.folder) or self.folder
        missing = Missing()
        result = run_test(
            self.folder,
            [owner],
            device=device,
            again=again,
            data_path=data_path,
            data_settings=data_settings,
            missing=missing,
        )
        if (owner / "result.json").is_file():
            save_test_scores(owner, result)
        write_pages(owner, missing)
        for line in missing.describe():
            warnings.warn(line, stacklevel=2)
        return result


def load(run: str | os.PathLike[str], *, device: str = "auto", trust: Sequence[str] = ()) -> Predictor:
    """Load the model of a run, or that in a run, search or bundle folder, to predict with.

    device: auto, cpu, cuda, cuda:N or mps. trust: the import path of a model of your own, such as ("my_nets:Net",): no
    other code is imported. RunError if there is no model, ModelError if its code is not trusted or not installed.

    >>> model = classifier.load(run)
    >>> model.class_names
    ('blue', 'green', 'red')
    """
    return Predictor(os.fspath(run), device=device, trust=trust)
