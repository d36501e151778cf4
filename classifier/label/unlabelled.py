"""Images without a label, chosen from a folder a batch at a time, for one annotator or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.label.agreement import Agreed, agree
from classifier.label.answers import Answer, read_all
from classifier.label.assignment import Assignment, Item, Labels
from classifier.label.batches import LOCK, Batch, add_batch, find_shared, read_batches
from classifier.label.choose import choose
from classifier.label.guess import Guesses, guess
from classifier.label.manifest import LabelManifest
from classifier.label.pool import Pool
from classifier.storage.file_lock import hold_lock

REFIT_EVERY = 5
"""Answers after which the probe is fitted again."""


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """How images are chosen. count: of a batch; overlap: the share of it that others were given, if there are such."""

    annotator: str
    count: int
    seed: int
    overlap: float
    earlier: int = 0
    """Images with which the model was trained."""


class Unlabelled(Assignment):
    """The open images of an annotator; a new batch is chosen if there are none.

    class_names: of the model of a bundle, else those that the user has named. DataError as of LabelManifest.
    """

    kind = "new"

    def __init__(
        self,
        pool: Pool,
        manifest: LabelManifest,
        folder: Path,
        class_names: tuple[str, ...],
        settings: ChoiceSettings,
        *,
        title: str,
        is_multilabel: bool,
    ) -> None:
        self.title, self.folder, self.manifest, self.is_multilabel = title, folder, manifest.path, is_multilabel
        self._pool, self._table, self._settings, self._named = pool, manifest, settings, class_names
        self._ids = [manifest.name(file) for file in pool.files]
        self._keys = {id_: n for n, id_ in enumerate(self._ids)}
        self._earlier_labels, _ = manifest.read_labels()
        self._answers = read_all(folder)
        given = self._list_given(read_batches(folder))
        manifest.check(given, agree(self._answers)[0])
        self._earlier_labels = {id_: own for id_, own in self._earlier_labels.items() if id_ not in given}
        self._guesses: Guesses | None = None
        self._fitted_to = -1
        self._own_batches = [one for one in read_batches(folder) if one.annotator == settings.annotator]
        self._refit()
        self.record(self._answers)
        if all(id_ in self._said for id_ in self._list_own()):
            self.choose_more()

    @property
    def way(self) -> str:
        """How the latest images were chosen."""
        return self._own_batches[-1].way if self._own_batches else ""

    def list_items(self) -> Sequence[Item]:
        latest = self._own_batches[-1].images if self._own_batches else ()
        open_ = [id_ for id_ in self._list_own() if id_ not in self._said and id_ not in latest]
        items = []
        for id_ in (*open_, *latest):
            if (key := self._keys.get(id_)) is not None:
                guessed, probability = None, None
                if self._guesses:
                    guessed, probability = self._guesses.name_best(key, is_multilabel=self.is_multilabel)
                items.append(Item(key, id_, guessed, probability))
        return items

    def list_classes(self) -> tuple[str, ...]:
        earlier = sorted({label for own in self._earlier_labels.values() for label in own})
        return tuple(dict.fromkeys((*self._named, *earlier)))

    def find_file(self, key: int) -> Path | None:
        return self._pool.files[key] if 0 <= key < len(self._pool.files) else None

    def find_key(self, id_: str) -> int | None:
        return self._keys.get(id_)

    def record(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        self._answers = answers
        agreed, _ = agree(answers)
        self._table.write(self._list_given(read_batches(self.folder)), agreed)
        if abs(len(agreed) - self._fitted_to) >= REFIT_EVERY or self._guesses is None:
            self._refit()

    def choose_more(self) -> int:
        settings, shared = self._settings, list[str]()
        self._refit()
        with hold_lock(self.folder / LOCK, "choosing images"):
            batches = read_batches(self.folder)
            others = [id_ for id_ in find_shared(batches, settings.annotator) if id_ in self._keys]
            shared = others[: round(settings.overlap * settings.count)]
            labels = self._collect_labels()
            given = [self._keys[id_] for id_ in self._list_given(batches) if id_ in self._keys]
            chosen = choose(
                self._pool,
                self._guesses,
                [n for n in labels if n not in given] + [n for n in given if n in labels],
                [n for n in given if n not in labels],
                settings.count - len(shared),
                settings.seed + len(batches),
                earlier=settings.earlier,
                is_multilabel=self.is_multilabel,
            )
            images = (*shared, *(self._ids[n] for n in chosen.images))
            if images:
                batch = Batch(settings.annotator, images, chosen.way if chosen.images else "shared")
                add_batch(self.folder, batch)
                self._own_batches.append(batch)
        return len(images)

    @property
    def _said(self) -> set[str]:
        """Images that this annotator has answered, or skipped."""
        return {one.image for one in self._answers.get(self._settings.annotator, ()) if not one.is_resolution}

    def _list_own(self) -> list[str]:
        return [id_ for batch in self._own_batches for id_ in batch.images]

    @staticmethod
    def _list_given(batches: Sequence[Batch]) -> set[str]:
        """Images whose rows in the manifest follow from answers."""
        return {id_ for batch in batches for id_ in batch.images}

    def _collect_labels(self) -> dict[int, Labels]:
        """Return the labels of images of the pool by index: of the manifest, and those that were agreed on."""
        agreed: dict[str, Agreed] = agree(self._answers)[0]
        labels = self._earlier_labels | {id_: one.labels for id_, one in agreed.items()}
        return {self._keys[id_]: own for id_, own in labels.items() if id_ in self._keys}

    def _refit(self) -> None:
        labels = self._collect_labels()
        self._fitted_to = len(labels)
        self._guesses = guess(self._pool, self._named, labels, is_multilabel=self.is_multilabel)
