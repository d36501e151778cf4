"""Labels that are probably wrong, to be kept or changed; the changes end in a manifest of the whole data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.audit.checks import draw_splits_for
from classifier.data.audit.scan import ScanResult
from classifier.data.labels.label_sets import list_classes
from classifier.data.split_names import SPLITS
from classifier.errors import ConfigError
from classifier.evaluation.label_errors import LabelError
from classifier.label.agreement import agree
from classifier.label.answers import Answer, read_all
from classifier.label.assignment import Assignment, Item
from classifier.label.manifest import LabelManifest
from classifier.text import escape_surrogates


class Suspects(Assignment):
    """Images whose labels are probably wrong, the most confident error first.

    ConfigError if the images of the data set are no files of their own, which a manifest could list.
    """

    kind = "errors"

    def __init__(
        self,
        scan: ScanResult,
        errors: Sequence[LabelError],
        config: DataConfig,
        manifest: LabelManifest,
        folder: Path,
    ) -> None:
        source = scan.source
        refuse_packed(scan)
        self.title, self.manifest, self.folder = source.name, manifest.path, folder
        self.is_multilabel = source.label_sets is not None
        self._table, self._names, self._files = manifest, source.class_names, source.images
        ids = [manifest.name(Path(str(file))) for file in source.images]
        self._items = []
        for error in errors:
            own, suggested = (tuple(self._names[k] for k in one) for one in (error.own, error.suggested))
            self._items.append(Item(error.image, ids[error.image], suggested, error.confidence, own))
        self._keys = {one.id: one.key for one in self._items}
        groups = source.groups if "group" not in source.columns else None
        self._columns = [*(["group"] if groups is not None else []), *source.columns]
        splits_K, _ = draw_splits_for(scan, config)
        sets_MK = source.encode_label_sets()
        self._rows: dict[str, tuple[tuple[str, ...], list[str]]] = {}
        """By path in the manifest: the labels, and the cells of the other columns."""
        for n, split in zip(scan.usable_N.tolist(), splits_K.tolist(), strict=True):
            cells = [] if groups is None else [str(groups[n])]
            cells += [str(of[n]) for of in source.columns.values()]
            labels: tuple[str, ...] = tuple(list_classes(int(source.labels_N[n]), source.class_names, sets_MK))
            self._rows[ids[n]] = labels, [SPLITS[split], *cells]
        self.record(read_all(folder))

    def list_items(self) -> Sequence[Item]:
        return self._items

    def list_classes(self) -> tuple[str, ...]:
        return self._names

    def find_file(self, key: int) -> Path | None:
        return Path(str(self._files[key])) if key in self._keys.values() else None

    def find_key(self, id_: str) -> int | None:
        return self._keys.get(id_)

    def record(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        agreed, _ = agree(answers)
        rows = []
        for id_, (labels, cells) in self._rows.items():
            given = agreed[id_].labels if id_ in agreed else labels
            text = self._table.format_labels(given)
            rows.append([escape_surrogates(id_), text, *map(escape_surrogates, cells)])
        self._table.write_whole(["path", "label", "split", *self._columns], rows)

    def choose_more(self) -> int:
        return 0


def refuse_packed(scan: ScanResult) -> None:
    """Raise ConfigError if the images are in arrays, archives or tables."""
    images = scan.source.images
    if isinstance(images, np.ndarray) or not all(isinstance(one, Path) for one in images):
        raise ConfigError(
            f"{scan.source.name} has images that are no files of their own, which a manifest cannot list: unpack them"
        )
