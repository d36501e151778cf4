"""A small data set of images with columns, and untrained bundles of it that answer by both."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier

from classifier import models
from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.data.columns.cells import write_value
from classifier.data.columns.learn import learn_schema
from classifier.data.columns.request import ColumnRequest
from classifier.data.columns.schema import ColumnSchema
from classifier.data.dataset import Dataset, Split
from classifier.inference.features import extract_features
from classifier.inference.out_of_distribution import fit_detector
from classifier.models.fusion.candidates import TREES, project
from classifier.models.fusion.fusion_net import FusionNet
from classifier.models.fusion.tree_ensemble import from_forest
from tests.export.conftest import CLASSES, sharpen
from tests.export.conftest import make_dataset as make_waves

COUNT, SIZE = 50, 24
NAMES = ("weight", "colour, or none", "seen", "notes")
Answers = Literal["head", "trees", "average"]


def draw_rows(count: int = COUNT, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of a number, a category, a date and a text; some values are missing."""
    rng, rows = np.random.default_rng(seed), []
    for n in range(count):
        row = {
            NAMES[0]: float(rng.normal(3, 2)),
            NAMES[1]: str(rng.choice(["red", "green", "blue"])),
            NAMES[2]: f"20{n % 30:02d}-0{1 + n % 9}-11",
            NAMES[3]: f"a {rng.choice(['small', 'large'])} animal number {n}",
        }
        rows.append({name: None if rng.random() < 0.1 else value for name, value in row.items()})
    return rows


def learn(rows: list[dict[str, Any]]) -> ColumnSchema:
    """Return the schema of these rows, as a training learns it."""
    texts = {name: [write_value("", row[name]) for row in rows] for name in NAMES}
    request = ColumnRequest((), {NAMES[3]: "text"}, takes_all=True)
    return learn_schema("waves", texts, [str(n) for n in range(len(rows))], np.ones(len(rows), bool), request)[0]


def make_dataset() -> Dataset:
    """Return images of waves, 24 x 24 pixels, with columns."""
    waves = make_waves(SIZE, count=COUNT)
    train, validation, test = draw_rows(), draw_rows(seed=1), list[dict[str, Any]]()
    schema = learn(train)

    def add(split: Split, rows: list[dict[str, Any]]) -> Split:
        return Split(split.images_NCHW, split.labels_N, split.ids, torch.from_numpy(schema.encode(rows)))

    splits = {"train": add(waves.train, train), "validation": add(waves.validation, validation)}
    return Dataset(**{**vars(waves), **splits, "test": add(waves.test, test), "columns": schema})


def make_bundle(folder: Path, dataset: Dataset, answers: Answers = "head", *, has_flip: bool = False) -> Path:
    """Save a bundle that answers by its head, by trees on image and columns, or by the mean of head and trees."""
    schema = dataset.columns
    assert schema is not None
    resolved = {"data.size": dataset.size, "data.channels": dataset.channels, "train.precision": "fp32"}
    experiment = Experiment().override_all(resolved | {"model.name": "cnn", "augment.test_flip": has_flip})
    torch.manual_seed(0)
    shape: dict[str, Any] = {"classes": len(CLASSES), "channels": dataset.channels, "size": dataset.size}
    model = models.build(experiment.model, **shape, column_widths=schema.widths, weights=False)
    assert isinstance(model, FusionNet)
    sharpen(model)
    about = Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    scorer = about.scorer(torch.device("cpu"))
    with torch.no_grad():
        for _ in range(3):  # batch norms see the images
            model.train()((dataset.train.images_NCHW[:16].float() / 255 - 0.5) / 0.25)
    model.eval()
    if answers != "head":
        model.fusion.candidate = model.fusion.make_candidate(_grow(model, scorer, dataset, answers))
        model.eval()
    images = (dataset.train.images_NCHW, dataset.validation.images_NCHW)
    bundle.save(about, model, folder, fit_detector(model, scorer, *images))
    return folder


def _grow(model: FusionNet, scorer: Any, dataset: Dataset, answers: Answers) -> dict[str, torch.Tensor]:
    train = dataset.train
    assert train.columns_NF is not None
    rows_NF = train.columns_NF[:, 1:]
    own = {"weight": torch.tensor(0.4)}
    if answers == "trees":
        projection_PB = torch.randn(3, model.fusion.features)
        features_NB = extract_features(model, scorer, train.images_NCHW)
        rows_NF = torch.cat([project(features_NB, projection_PB), rows_NF], 1)
        own = {"projection": projection_PB}
    forest = ExtraTreesClassifier(20, random_state=0).fit(rows_NF.numpy(), train.labels_N.numpy())
    trees = {f"{TREES}{name}": tensor for name, tensor in from_forest(forest, len(CLASSES)).items()}
    return trees | own | {"offset": torch.zeros(len(CLASSES))}
