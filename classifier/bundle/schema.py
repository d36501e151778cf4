"""What bundle.json may contain: the types and ranges of its keys, and how they must agree.

Scores, the description of a data set and calibration are in documents of run folders, too.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from classifier.config.documents import Count, check
from classifier.config.fields import Fraction, NonNegativeFloat, PositiveInt, Range
from classifier.config.sections import Task
from classifier.errors import ConfigError

# A proportion; sums of many may be above 1 by their rounding.
Share = Annotated[float, Range(0, 1 + 1e-6)]
Correlation = Annotated[float, Range(-1 - 1e-6, 1 + 1e-6)]
# A flat channel has a deviation of 1/255.
Deviation = Annotated[float, Range(1e-4, 1)]
ImageSize = Annotated[int, Range(1, 2048)]
# Either end of an interval may be that of a loss.
Interval = list[float]


class LevelScores(TypedDict):
    """The scores of nested classes at a level above the leaves, 1 the outermost (metrics.level_scores)."""

    depth: PositiveInt
    classes: PositiveInt
    accuracy: Share
    macro_f1: Share
    intervals: dict[str, Interval | None]


class Summary(TypedDict):
    """The scores of a split in result.json; all that is known of a model that was not calibrated.

    The accuracy of several labels is their subset_accuracy.
    """

    accuracy: Share
    macro_f1: Share
    loss: NonNegativeFloat
    count: PositiveInt
    map: NotRequired[Share | None]
    micro_f1: NotRequired[Share]
    levels: NotRequired[list[LevelScores]]
    quadratic_kappa: NotRequired[Correlation | None]
    mean_absolute_error: NotRequired[NonNegativeFloat]


class ClassScores(TypedDict):
    """The scores of one class."""

    name: str
    precision: Share
    recall: Share
    f1: Share
    support: Count
    intervals: dict[str, Interval | None]
    roc_auc: Share | None
    average_precision: Share | None


class Scores(Summary):
    """What metrics.scores.compute_scores returns."""

    balanced_accuracy: Share
    top5: Share
    macro_precision: Share
    macro_recall: Share
    weighted_precision: Share
    weighted_recall: Share
    weighted_f1: Share
    roc_auc: Share | None
    average_precision: Share | None
    kappa: Correlation | None
    mcc: Correlation
    brier: Annotated[float, Range(-1e-6, 2 + 1e-6)]
    ece: Share
    ece_by_chance: NotRequired[Share]
    confidence: NotRequired[Share]
    intervals: dict[str, Interval | None]
    per_class: list[ClassScores]
    confusion: list[list[Count]]


class LabelScores(ClassScores):
    """The scores of one of several labels. predicted: of how many images it was said."""

    predicted: Count
    threshold: NotRequired[Fraction | None]


class MultilabelSummary(TypedDict):
    """All that is known of a model of several labels that was not calibrated."""

    map: Share | None
    micro_f1: Share
    macro_f1: Share
    samples_f1: Share
    subset_accuracy: Share
    hamming_loss: Share
    loss: NonNegativeFloat
    count: PositiveInt


class MultilabelScores(MultilabelSummary):
    """What metrics.multilabel_scores.compute_multilabel_scores returns."""

    micro_precision: Share
    micro_recall: Share
    macro_precision: Share
    macro_recall: Share
    samples_precision: Share
    samples_recall: Share
    roc_auc: Share | None
    ece: Share
    ece_by_chance: Share
    intervals: dict[str, Interval | None]
    per_class: list[LabelScores]


class DatasetSummary(TypedDict):
    """What Dataset.summary returns."""

    name: str
    counts: dict[str, Count]
    class_names: list[str]
    fingerprint: str
    size: NotRequired[ImageSize]
    channels: NotRequired[int]
    findings: NotRequired[list[str] | None]


class CalibrationDocument(TypedDict):
    """What Calibration.as_dict returns."""

    images: Count
    temperature: Annotated[float, Range(1e-3, 1e3)]
    coverage: Fraction
    level: Fraction
    wish: str | None
    thresholds: list[Fraction | None] | None
    ancestor_threshold: NotRequired[Fraction | None]


class FusionScore(TypedDict):
    accuracy: Share
    loss: NonNegativeFloat


class InputImportance(TypedDict):
    """What is lost where an input belongs to another image: the drop of a score and the rise of the log loss, the mean
    of all repeats and their standard deviation. None: the score is undefined."""

    kind: Literal["image", "columns", "column"]
    """columns: all of them together."""
    name: str
    drop: Annotated[float, Range(-2, 2)] | None
    drop_deviation: Annotated[float, Range(0, 2)] | None
    rise: Annotated[float, Range(-1e39, 1e39)] | None
    rise_deviation: NonNegativeFloat | None


class ImportanceDocument(TypedDict):
    """Permutation importance of the image and of each column, on so many images of a split."""

    images: Annotated[int, Range(1, 10**9)]
    repeats: Annotated[int, Range(1, 1000)]
    score: Literal["accuracy", "map", "quadratic_kappa"]
    value: Correlation | None
    """Of this score, where nothing is shuffled."""
    loss: NonNegativeFloat
    inputs: list[InputImportance]


class SplitImportance(TypedDict):
    validation: NotRequired[ImportanceDocument]
    test: NotRequired[ImportanceDocument]


class FusionDocument(TypedDict):
    """How columns join the image: what was chosen, and how all ways to join them did on so many held-out images."""

    chosen: Literal["mlp", "trees", "average"]
    images: Count
    image: NotRequired[FusionScore]
    """Of the image alone, by a linear model of its features."""
    columns: NotRequired[FusionScore]
    """Of the columns alone, by trees."""
    mlp: NotRequired[FusionScore]
    trees: NotRequired[FusionScore]
    average: NotRequired[FusionScore]
    weight: NotRequired[Share]
    """Of the model of both in the average with trees over the columns."""
    importance: NotRequired[SplitImportance]


class Provenance(TypedDict):
    made: str
    epoch: Count
    versions: dict[str, str | None]


class Checksum(TypedDict):
    sha256: str


class BundleDocument(TypedDict):
    """bundle.json, without what the sections of an experiment check themselves: `model`, `experiment` and `fit`."""

    format_version: int
    model: dict[str, Any]
    class_names: list[str]
    channels: int
    size: ImageSize
    fit: str
    mean: list[Fraction]
    std: list[Deviation]
    test_flip: bool
    scores: dict[str, dict[str, Any] | None]
    experiment: dict[str, Any]
    dataset: DatasetSummary
    provenance: Provenance
    calibration: NotRequired[CalibrationDocument | None]
    task: NotRequired[Task]
    columns: NotRequired[Any]
    """What ColumnSchema.as_dict returns; its from_dict checks it. None without columns."""
    fusion: NotRequired[FusionDocument | None]
    files: dict[str, Checksum]


def check_agreement(document: BundleDocument) -> None:
    """ConfigError for keys that do not agree: one mean per channel, distinct classes, a threshold for each."""
    names, channels = document["class_names"], document["channels"]
    if not names or len(set(names)) < len(names):
        raise ConfigError("class_names must be different names, and at least one")
    if channels not in (1, 3) or not len(document["mean"]) == len(document["std"]) == channels:
        raise ConfigError(f"channels is {channels}: it must be 1 or 3, and mean and std must have a value for each")
    if document["scores"].keys() != {"validation", "test"}:
        raise ConfigError("scores must be those of validation and test")
    calibration = document.get("calibration")
    if calibration and calibration["thresholds"] is not None and len(calibration["thresholds"]) != len(names):
        raise ConfigError("calibration.thresholds must have one for each class")


def check_scores(
    key: str, scores: dict[str, Any], class_names: Sequence[str] | None = None, *, is_multilabel: bool
) -> dict[str, Any]:
    """Return the scores of a split, or ConfigError if they are none. class_names: which they must be of, if known."""
    if "intervals" not in scores:  # of an epoch: few
        return check(key, MultilabelSummary if is_multilabel else Summary, scores)
    checked = check(key, MultilabelScores if is_multilabel else Scores, scores)
    rows = checked["per_class"]
    names = list(class_names) if class_names is not None else [row["name"] for row in rows]
    if [row["name"] for row in rows] != names or not names:
        raise ConfigError(f"{key}.per_class must have a row for each class")
    if is_multilabel:
        if any(max(row["support"], row["predicted"]) > checked["count"] for row in rows):
            raise ConfigError(f"{key}.count is {checked['count']}: a label cannot have more images")
    else:
        _check_confusion(key, cast("Scores", checked))
    _check_intervals(key, checked, ("map", "macro_f1") if is_multilabel else ("accuracy", "macro_f1"))
    return checked


def _check_confusion(key: str, scores: Scores) -> None:
    """ConfigError for scores that do not follow from one confusion matrix."""
    supports, confusion_KK = [row["support"] for row in scores["per_class"]], scores["confusion"]
    is_square = [len(row) for row in confusion_KK] == [len(supports)] * len(supports)
    if not is_square or list(map(sum, confusion_KK)) != supports:
        raise ConfigError(f"{key}.confusion must have a row and a column for each class, and the images of per_class")
    if scores["count"] != sum(supports) or not sum(supports):
        raise ConfigError(f"{key}.count is {scores['count']}: it must be the number of images in the confusion matrix")


def _check_intervals(key: str, scores: dict[str, Any], needed: Sequence[str]) -> None:
    rows = scores["per_class"]
    of_rows = [(f"{key}.per_class", row["intervals"]) for row in rows]
    of_rows += [(f"{key}.levels", row["intervals"]) for row in scores.get("levels", ())]
    for where, intervals in ((key, scores["intervals"]), *of_rows):
        for name, interval in intervals.items():
            if interval is not None and (len(interval) != 2 or interval[0] > interval[1]):
                raise ConfigError(f"{where}.intervals.{name} is {interval}: it must have a lower and an upper end")
    for name in needed:
        if name not in scores["intervals"]:
            raise ConfigError(f"{key}.intervals.{name} is missing")
    if any("f1" not in row["intervals"] for row in rows):
        raise ConfigError(f"{key}.per_class.intervals.f1 is missing")
