"""Answers to any number of images, in parts: here, or on Ray's workers."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from classifier.answers.answering import answer_part, describe_model
from classifier.answers.listing import ImageListing, Part, cut_into_parts
from classifier.answers.store import AnswerStore, PartDocument, Settings
from classifier.bundle.predictor import Predictor
from classifier.config.sections import WorkersConfig
from classifier.training.progress import format_clock

from ..cli.console import RunLog

LINE_SECONDS = 30.0
"""Between two lines on the progress, where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What is asked. predictor: the arguments of Predictor."""

    path: str
    inputs: tuple[str, ...]
    format: str
    part_size: int
    top: int
    probabilities: bool
    features: bool
    predictor: dict[str, Any]
    workers: WorkersConfig

    @property
    def model(self) -> str:
        """Path of the model, as it was given."""
        return str(self.predictor["path"])

    def settings(self, model: str, engine: str) -> Settings:
        limits = {name: value for name, value in self.predictor.items() if name.startswith("max_")}
        inputs = [*self.inputs]
        names = ("format", "part_size", "top", "probabilities", "features")
        chosen: Any = {name: getattr(self, name) for name in names}
        return Settings(model=model, engine=engine, limits=limits, inputs=inputs, **chosen)


@dataclass
class AnswerCounts:
    """What was answered; `kept` of the images by an earlier call of the same command."""

    parts: int = 0
    images: int = 0
    kept: int = 0
    unreadable: int = 0

    def add(self, done: PartDocument, *, is_kept: bool) -> None:
        self.parts, self.images = self.parts + 1, self.images + done["images"]
        self.kept, self.unreadable = self.kept + done["images"] * is_kept, self.unreadable + done["unreadable"]

    def describe(self, seconds: float) -> str:
        parts = f"{self.parts:,} part{'' if self.parts == 1 else 's'}"
        kept = f", {self.kept:,} of them earlier" if self.kept else ""
        broken = f", {self.unreadable:,} could not be read" if self.unreadable else ""
        answered = self.images - self.kept
        return f"{self.images:,} images in {parts}{kept}{broken}" + (
            f", {answered / seconds:,.0f} images/s" if answered else ""
        )


def answer_in_parts(
    listing: ImageListing, options: AnswerOptions, log: RunLog, open_predictor: Callable[[], Predictor]
) -> AnswerCounts:
    """Answer all images, except those in parts that are there already, and say what was done.

    open_predictor: called if there are no workers. Errors as of Predictor and AnswerStore.
    """
    process = _RayWorkers(options, log) if options.workers.count > 1 else _ThisProcess(open_predictor())
    store = AnswerStore(options.path, options.settings(*process.described))
    counts, lines, about = AnswerCounts(), _ProgressLines(listing, log), (process.class_names, options.model)
    with store.lock():
        store.open(*about)
        for note in listing.notes:
            log.warning(f"note: {note}")
        noted, began = len(listing.notes), time.monotonic()
        try:
            with log.progress_bar("predicting", None, listing.estimate_total) as show:
                parts = cut_into_parts(listing, options.part_size)
                for done, is_kept in process.answer(store, parts, lambda count: (show(count), lines.advance(count))):
                    counts.add(done, is_kept=is_kept)
                    if is_kept:
                        show(done["images"])
                        lines.keep(done["images"])
        except BaseException as error:
            if counts.images:
                error.add_note(f"{counts.images:,} images are answered in {options.path}: the same command goes on")
            raise
        for note in listing.notes[noted:]:
            log.warning(f"note: {note}")
        if removed := store.finish(*about, counts.parts, counts.images, counts.unreadable):
            log.warning(f"note: {removed:,} parts were removed: their images are gone")
    log.info(counts.describe(time.monotonic() - began))
    return counts


_Advance = Callable[[int], object]
"""Is called with each count of images that were answered now."""


class _ThisProcess:
    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.class_names, self.described = self.predictor.class_names, describe_model(self.predictor)

    def answer(
        self, store: AnswerStore, parts: Iterable[Part], advance: _Advance
    ) -> Iterator[tuple[PartDocument, bool]]:
        """Yield what was done for each part, and whether it was there already."""
        for part in parts:
            found = store.find(part)
            yield found or answer_part(self.predictor, store, part, advance), found is not None


class _RayWorkers:
    def __init__(self, options: AnswerOptions, log: RunLog) -> None:
        from ..launch.answer_workers import AnswerPool

        log.begin_phase("starting Ray")
        self.pool = AnswerPool(options.path, options.predictor, options.workers)
        self.class_names, self.described = self.pool.class_names, self.pool.described

    def answer(
        self, store: AnswerStore, parts: Iterable[Part], advance: _Advance
    ) -> Iterator[tuple[PartDocument, bool]]:
        """As `_ThisProcess.answer`; all parts are listed before the first one is answered."""
        for part in parts:
            if found := store.find(part):
                yield found, True
            else:
                self.pool.add(part)
        for done in self.pool.answer(store):
            advance(done["images"])
            yield done, False


class _ProgressLines:
    """Lines on the progress, where there is no terminal."""

    def __init__(self, listing: ImageListing, log: RunLog) -> None:
        self.listing, self.log = listing, log
        self.began = self.last = time.monotonic()
        self.kept = self.answered = 0

    def keep(self, images: int) -> None:
        """Count images that were answered by an earlier call: that takes no time."""
        self.kept += images
        if not self.answered:
            self.began = time.monotonic()

    def advance(self, images: int) -> None:
        self.answered += images
        now = time.monotonic()
        if self.log.is_live or now - self.last < LINE_SECONDS:
            return
        self.last, rate = now, self.answered / (now - self.began)
        done, total = self.kept + self.answered, self.listing.estimate_total()
        left = f", about {format_clock((total - done) / rate)} left" if total and total > done else ""
        self.log.info(f"{done:,} images, {rate:,.0f} images/s{left}")
