"""Unlabelled images whose features are known, and a page of them in a thread."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier.config.sections import DataConfig
from classifier.label.answers import AnswerLog
from classifier.label.labelling import Labelling
from classifier.label.manifest import LabelManifest
from classifier.label.page.server import Page
from classifier.label.pool import Pool
from classifier.label.unlabelled import ChoiceSettings, Unlabelled

CLASSES = ("blue", "green", "red")
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def write_images(folder: Path, count: int = 30, names: Callable[[int, str], str] | None = None) -> list[str]:
    """Write images of three colours in turns, with noise; return their classes in the order of their names."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    classes = [CLASSES[n % 3] for n in range(count)]
    for n, name in enumerate(classes):
        pixels = np.clip(np.array(COLOURS[name]) + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / (names(n, name) if names else f"{n:03d}-{name}.png"))
    return classes


def make_pool(folder: Path, *, dimensions: int = 8) -> Pool:
    """Return the pool of the images in a folder; features cluster by the classes in their names."""
    files = tuple(sorted(folder.iterdir()))
    rng = np.random.default_rng(1)
    centres_KF = rng.normal(0, 1, (len(CLASSES), dimensions))
    of = [next((k for k, name in enumerate(CLASSES) if name in file.name), 0) for file in files]
    features_NF = centres_KF[of] + rng.normal(0, 0.2, (len(files), dimensions))
    return Pool(files, features_NF.astype(np.float32), np.arange(len(files)))


@dataclass
class Desk:
    """What an annotator works with. The files of the same folder are there in the next one."""

    folder: Path
    labelling: Labelling
    log: AnswerLog
    page: Page | None = None

    @property
    def manifest(self) -> Path:
        return self.labelling.assignment.manifest

    def ask(
        self, path: str, sent: Any = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Return the status, the body as JSON where it is, and the headers."""
        assert self.page
        port = int(self.page.url.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        body = None if sent is None else json.dumps(sent)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = {} if sent is None else {"content-type": "application/json"}
        connection.request(method or ("GET" if body is None else "POST"), path, body, kind | names)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if is_json else content, response.headers


class Opener:
    """Opens desks, and closes them at the end of the test."""

    def __init__(self) -> None:
        self._open, self._logs = list[Desk](), ExitStack()

    def __call__(
        self,
        images: Path,
        annotator: str = "me",
        *,
        count: int = 12,
        overlap: float = 1.0,
        is_multilabel: bool = False,
        has_page: bool = False,
        manifest: Path | None = None,
        classes: tuple[str, ...] = CLASSES,
    ) -> Desk:
        path = manifest or images.with_name(f"{images.name}-labels.csv")
        folder = path.with_suffix(".answers")
        folder.mkdir(exist_ok=True)
        log = self._logs.enter_context(AnswerLog(folder, annotator))
        table = LabelManifest(path, folder, is_multilabel=is_multilabel, has_annotators=annotator != "me")
        settings = ChoiceSettings(annotator=annotator, count=count, seed=0, overlap=overlap)
        pool = make_pool(images)
        assignment = Unlabelled(
            pool, table, folder, classes, settings, title="Label images", is_multilabel=is_multilabel
        )
        labelling = Labelling(assignment, log)
        desk = Desk(folder, labelling, log, Page(labelling, DataConfig(), 0) if has_page else None)
        self._open.append(desk)
        return desk

    def close(self) -> None:
        for desk in self._open:
            if desk.page:
                desk.page.close()
        self._logs.close()
        self._open.clear()


@pytest.fixture
def open_desk() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    opener.close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 30 images of three colours, which their names tell."""
    write_images(tmp_path / "images")
    return tmp_path / "images"


def true_label(name: str) -> str:
    return next(one for one in CLASSES if one in name.rpartition("/")[2])
