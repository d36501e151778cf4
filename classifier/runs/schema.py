"""What the documents of a run folder may contain: the types and ranges of their keys, and how they must agree."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from classifier.bundle.schema import Correlation, DatasetSummary, FusionDocument, Share, Summary
from classifier.config.documents import Count
from classifier.config.fields import PositiveInt, Range
from classifier.errors import ConfigError

# Any time, speed or loss: float32 has no larger number.
Quantity = Annotated[float, Range(0, 1e39)]
Versions = dict[str, str | None]


class HistoryRow(TypedDict):
    """A line of history.jsonl."""

    epoch: Annotated[int, Range(1, 10**9)]
    step: Count
    seconds: Quantity
    lr: Quantity
    train_loss: Quantity | None
    train_accuracy: Share | None
    validation_loss: Quantity | None
    validation_accuracy: Share | None
    validation_macro_f1: Share | None
    validation_map: NotRequired[Share | None]
    validation_micro_f1: NotRequired[Share | None]
    validation_quadratic_kappa: NotRequired[Correlation | None]
    validation_mean_absolute_error: NotRequired[Quantity | None]
    images_per_second: Quantity | None
    input_wait: NotRequired[Quantity | None]
    order: NotRequired[str | None]
    improves: NotRequired[bool]
    best: NotRequired[bool]


class FoldScores(TypedDict):
    mean: float
    deviation: Quantity
    folds: list[float | None]


class CurvePoint(TypedDict):
    images: PositiveInt
    train: Share
    validation: Share


class Curve(TypedDict):
    points: list[CurvePoint]
    validation_images: NotRequired[PositiveInt]
    predicted: dict[str, Share]
    predicted_intervals: NotRequired[dict[str, list[float]]]
    says: list[str]


class UnlabelledGain(TypedDict):
    """What unlabelled images brought, on the same images held out, against the same training by the labels alone."""

    method: str
    images: PositiveInt
    by: Literal["validation", "folds"]
    judged: PositiveInt
    accuracy: Share
    alone: Share
    interval: list[float]
    used: bool


class Result(TypedDict):
    """result.json of any verb; studies and searches have more keys, below."""

    format_version: int
    kind: str
    status: str
    seconds: NotRequired[Quantity | None]
    config: NotRequired[dict[str, Any] | None]
    dataset: NotRequired[DatasetSummary | None]
    validation: NotRequired[Summary | None]
    test: NotRequired[Summary | None]
    images_per_second: NotRequired[Quantity | None]
    input_wait: NotRequired[Quantity | None]
    epochs: NotRequired[Count | None]
    parameters: NotRequired[Count | None]
    device: NotRequired[str | None]
    fusion: NotRequired[FusionDocument | None]
    unlabelled: NotRequired[UnlabelledGain | None]
    test_reads: NotRequired[Count | None]
    versions: NotRequired[Versions]
    error: NotRequired[str | None]
    missing: NotRequired[list[str] | None]
    folds: NotRequired[dict[str, FoldScores]]
    curve: NotRequired[Curve]


class SearchResult(Result):
    """result.json of a search that has a winner."""

    winner: str
    selection: Summary
    trials: dict[str, Count]
    importance: dict[str, Share]
    objective: list[Literal["accuracy", "macro_f1", "map", "quadratic_kappa", "loss", "latency", "size", "epochs"]]


class TrialRow(TypedDict):
    """A row of trials.parquet; it has a column for each setting that was searched, too."""

    rank: Count
    trial: str
    status: str
    epochs: Count
    validation_accuracy: Share | None
    validation_macro_f1: Share | None
    validation_map: NotRequired[Share | None]
    validation_quadratic_kappa: NotRequired[Correlation | None]
    validation_loss: Quantity | None
    latency: NotRequired[Quantity | None]
    size: NotRequired[Quantity | None]
    best_epoch: Count | None
    on_front: bool
    at: Quantity
    source: str


class Corruptions(TypedDict):
    images: PositiveInt
    clean: Share
    mean: Share
    kinds: dict[str, list[Share]]


class Attacks(TypedDict):
    images: NotRequired[PositiveInt]
    epsilons: list[Quantity]
    fgsm: list[Share]
    pgd: list[Share]
    auroc: dict[str, Share]


class Shift(TypedDict):
    name: str
    accuracy: Share
    intervals: dict[str, list[float] | None]


class Unlike(TypedDict):
    name: str
    images: NotRequired[PositiveInt]
    auroc: dict[str, Share]


class Robustness(TypedDict):
    """robustness.json."""

    corruptions: Corruptions
    attacks: NotRequired[Attacks | None]
    shift: NotRequired[Shift]
    unlike: NotRequired[Unlike]


class SplitFinding(TypedDict):
    kind: str


class SplitRecord(TypedDict):
    """split.json, what pages need of it."""

    findings: NotRequired[list[SplitFinding]]


class TrialSample(TypedDict):
    """sample.json of a trial."""

    number: Count
    source: str
    changes: dict[str, Any]
    drawn: dict[str, Any] | None


class TrialEnd(TypedDict):
    """ended.json of a trial."""

    epoch: Count
    whole: bool


class HalvedBatch(TypedDict):
    """halved.json of a trial that ran out of memory."""

    to: PositiveInt


class SpaceFile(TypedDict):
    """space.json of a search: its space once the best architecture was chosen."""

    space: dict[str, Any]
    base: dict[str, Any]


class SpentSeconds(TypedDict):
    """spent.json of a search."""

    seconds: Quantity


class BegunWith(TypedDict):
    """begun_with.json of a search."""

    code: str
    dataset: str


class RefitOf(TypedDict):
    """winner.json of a refit."""

    trial: str


class StoredUri(TypedDict):
    """storage.json of a run that is mirrored."""

    uri: str


class MlflowRun(TypedDict):
    """mlflow.json."""

    run_id: str


class WandbRun(TypedDict):
    """wandb.json."""

    id: str


HardExample = TypedDict(  # noqa: UP013 - keys in quotes: the columns keep words that names here do not use
    "HardExample",
    {
        "kind": str,
        "image_id": str,
        "label": str,
        "predicted": str,
        "class_name": NotRequired[str],
        "probability": Share,
        "picture": bytes,
        "map": bytes,
        "like_ids": list[str],
        "like_labels": list[str],
        "like_pictures": list[bytes],
    },
)
"""A row of mistakes.parquet."""


def check_studies_agree(result: Result) -> None:
    """ConfigError if the folds of a cross-validation, or the points of a learning curve, cannot be listed together."""
    if (gain := result.get("unlabelled")) is not None and len(gain["interval"]) != 2:
        raise ConfigError("unlabelled.interval must have a lower and an upper end")
    if (folds := result.get("folds")) is not None and len({len(scores["folds"]) for scores in folds.values()}) != 1:
        raise ConfigError("folds must have the scores of as many folds for each score")
    if (curve := result.get("curve")) is not None:
        numbers = [*curve["predicted"], *curve.get("predicted_intervals", {})]
        if not curve["points"] or not all(text.isascii() and text.isdigit() and len(text) < 16 for text in numbers):
            raise ConfigError("curve must have points, and predictions by number of images")
        if any(len(interval) != 2 for interval in curve.get("predicted_intervals", {}).values()):
            raise ConfigError("curve.predicted_intervals must have a lower and an upper end")
