"""Parts of images answered on Ray's workers: Ray Data deals them out, and deals a lost node's out again.

Each worker loads the model once, and puts its parts in place itself, as one process does: Ray moves only what names the
images. A part that was in place when its node was lost is not answered again.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from classifier.answers.answering import answer_part, describe_model
from classifier.answers.folders import LocalFolder
from classifier.answers.listing import STDIN, Part
from classifier.answers.store import AnswerStore, PartDocument, Settings
from classifier.bundle import document
from classifier.bundle.predictor import Predictor
from classifier.config.sections import WorkersConfig
from classifier.errors import ClassifierError, DataError

from .cluster import DriverContext, connect, refuse_unplaceable, refuse_unshared_folder, worker_resources


class AnswerPool:
    """Workers that answer parts. class_names, described: of the model, as the workers compute it (describe_model).

    The driver's own machine may have no GPU. ConfigError if the cluster has no room for the workers.
    """

    def __init__(self, path: str, predictor: dict[str, Any], workers: WorkersConfig) -> None:
        """path: of the answers. predictor: the arguments of Predictor, but for its threads."""
        self.path, self.workers = path, workers
        resources = connect()
        refuse_unplaceable(workers, resources)
        reserved = worker_resources(workers, resources)
        self.reserved: dict[str, Any] = {"num_cpus": reserved["CPU"], "num_gpus": reserved.get("GPU", 0.0)}
        self.task = _Task(predictor, DriverContext.current())
        self.class_names = document.read(predictor["path"]).class_names
        with _ray_errors():
            self.described: tuple[str, str] = ray.get(_describe.options(**self.reserved).remote(self.task))
        self._parts: list[Any] = []

    def add(self, part: Part) -> None:
        """Take a part: it leaves this process's memory."""
        self._parts.append(ray.put(part))

    def answer(self, store: AnswerStore) -> Iterator[PartDocument]:
        """Answer the parts, and yield what was done for each. Errors as of Predictor, AnswerStore and in a worker."""
        import ray.data

        if not self._parts:
            return
        if isinstance(store.folder, LocalFolder):
            fix = "set --answers to a folder that all nodes share, or that they all reach, such as s3://bucket/answers"
            refuse_unshared_folder(store.folder.path, fix)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        count = len(self._parts)
        # A block for each part: Ray deals out blocks.
        rows = ray.data.from_items([{"number": n} for n in range(count)], override_num_blocks=count)
        worker: Any = _Worker  # Ray's types know functions alone
        answered = rows.map(
            worker,
            fn_constructor_args=(self.task, self.path, store.settings, self._parts),
            compute=ray.data.ActorPoolStrategy(size=min(self.workers.count, count), max_tasks_in_flight_per_actor=1),
            **self.reserved,
        )
        with _ray_errors():
            yield from (PartDocument(**row) for row in answered.iter_rows())


@dataclass(frozen=True)
class _Task:
    predictor: dict[str, Any]
    driver: DriverContext

    def load(self) -> Predictor:
        """Load the model in a worker, with the threads that this has reserved."""
        self.driver.enter()
        return Predictor(**self.predictor, threads=int(os.environ.get("OMP_NUM_THREADS", "1")))


@ray.remote
def _describe(task: _Task) -> tuple[str, str]:
    return describe_model(task.load())


class _Worker:
    """One process of the pool."""

    def __init__(self, task: _Task, path: str, settings: Settings, parts: Sequence[Any]) -> None:
        """parts: references to them, by the numbers in the rows."""
        self.predictor, self.store, self.parts = task.load(), AnswerStore(path, settings), parts
        for word in settings["inputs"]:
            if word != STDIN and "://" not in word and not set("*?[{") & set(word) and not os.path.exists(word):
                raise DataError(
                    f"{word} does not exist on {socket.gethostname()}: give images that all nodes share, or that they "
                    "all reach, such as s3://bucket/images"
                )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part: Part = ray.get(self.parts[row["number"]])
        # It is there already if Ray deals it out again, as its first worker's node was lost with the reply.
        return dict(self.store.find(part) or answer_part(self.predictor, self.store, part))


@contextlib.contextmanager
def _ray_errors() -> Iterator[None]:
    """Raise the worker's own exception for a mistake of the user, without Ray's around it."""
    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ClassifierError):
                raise type(cause)(str(getattr(cause, "cause", cause)).rpartition("\n")[2]) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise
