"""The slices of an experiment, a noun each: every setting with its type, range, default and, below it, its help.

This module imports no torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from classifier.config.fields import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Section,
)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    section: ClassVar[str] = "data"

    path: str = "digits"
    """What to learn: a folder of class folders, a .zip or .tar of one, tar shards (WebDataset), Parquet tables that
    hold the pictures, a manifest (.csv, .parquet: path,label[,split]), a list (.txt, .lst), a folder of IDX files, or
    the name of a known data set (digits, cifar10, ...)."""
    batch: PositiveInt = 64
    """Images a step, over all workers together (per optimizer update, times optimizer.accumulate)."""
    batch_auto: bool = False
    """Find the fastest batch that fits into memory, once, and train with it in place of data.batch."""
    size: Annotated[int, Range(4, 2048)] | None = None
    """Side of the square that the model sees, in pixels. Found from the images when not set."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour. Found from the images when not set."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How a picture that is not square becomes square: cut the centre, pad the short side, or stretch."""
    validation: Fraction = 0.1
    """Share of the images that choose the best epoch, where the data set brings no validation split."""
    test: Fraction = 0.2
    """Share of the images kept for the one final test, where the data set brings no test split."""
    split_seed: NonNegativeInt = 0
    """Another number draws other splits. It is apart from `seed`, so that repeats share a test split."""
    folds: Annotated[int, Range(2, 1000)] | None = None
    """Cross-validation: so many folds, one of which takes the place of the test split (see jobs/crossval.py)."""
    fold: NonNegativeInt = 0
    """Which of data.folds is the test split, from 0 on."""
    limit: PositiveInt | None = None
    """Train on so many of the training images, each class in its share. Not set: on all."""
    balance: Fraction = 0.0
    """How far rare classes are drawn more often: 0 each image once an epoch, 1 each class alike."""
    root: str = "data"
    """Where a data set known by name lies, or is downloaded to."""
    download: bool = False
    """Fetch a data set known by name from the internet when it is not under data.root."""
    group: str | None = None
    """Images that share this are never split: a column of the manifest (patient), or for files a regular expression
    with one group that finds it in their names, like '(\\w+)_\\d+\\.jpg'."""
    only: str | None = None
    """A CSV of id,label,split: these pictures alone, of whatever data.path is (jobs/audit.py --write-manifest)."""
    outside: bool = False
    """Let a manifest name files outside of its own folder."""
    max_corrupt: Fraction = 0.01
    """Share of unreadable images that is skipped with a warning; more than that is refused."""
    max_pixels: PositiveInt = 100_000_000
    """A picture with more pixels than this counts as unreadable (decompression bombs)."""
    max_bytes: PositiveInt = 100_000_000
    """A picture whose file is larger than this counts as unreadable."""
    max_seconds: PositiveFloat = 30.0
    """A picture that takes longer than this to decode counts as unreadable."""
    stream: bool = False
    """Read pictures as they are needed, each epoch anew: for sets larger than the disk. Keeps no cache."""
    window: PositiveInt = 16
    """stream: chunks of 256 neighbouring images that are mixed at a time, and that memory holds."""
    cache: str | None = "~/.cache/classifier"
    """Folder on this machine's own disk that keeps files decoded, for all runs; none: decode in memory each time."""
    cache_as: Literal["auto", "pixels", "jpeg"] = "auto"
    """What the cache keeps of a picture. jpeg: of quality 95, in a fifth of the room, decoded each time; auto: pixels,
    and jpeg where a set's pixels would take more than half of data.cache_gb."""
    cache_gb: PositiveFloat = 50.0
    """GB that data.cache may take; what was not used for the longest time makes room."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    section: ClassVar[str] = "augment"

    policy: Literal["auto", "none", "symbols", "objects", "photos"] = "auto"
    """Strengths that are not set come from here. auto: by the data set (letters and digits are never mirrored)."""
    flip: Fraction | None = None
    """Probability to mirror left and right."""
    rotate: Annotated[float, Range(0, 180)] | None = None
    """Largest rotation either way, in degrees."""
    scale: Annotated[float, Range(0, 0.9)] | None = None
    """Largest change of size either way, as a share (0.1: 90 % to 110 %)."""
    shear: Annotated[float, Range(0, 60)] | None = None
    """Largest shear either way, in degrees."""
    shift: Annotated[float, Range(0, 0.5)] | None = None
    """Largest move in each direction, as a share of the side (crop with padding)."""
    crop: Annotated[float, Range(0, 1)] | None = None
    """Smallest share of the area that a random-resized crop keeps; 1 turns it off."""
    brightness: Fraction | None = None
    """Largest change of brightness either way, as a share."""
    contrast: Fraction | None = None
    """Largest change of contrast either way, as a share."""
    saturation: Fraction | None = None
    """Largest change of saturation either way, as a share; colour images only."""
    hue: Annotated[float, Range(0, 0.5)] | None = None
    """Largest turn of hue either way, as a share of the colour circle; colour images only."""
    erase: Fraction | None = None
    """Probability to blank a random rectangle (random erasing)."""
    mixup: NonNegativeFloat | None = None
    """Alpha of the Beta distribution that blends pairs of images; 0 turns it off."""
    cutmix: NonNegativeFloat | None = None
    """Alpha of the Beta distribution that pastes a patch of one image into another; 0 turns it off."""
    randaugment: Annotated[int, Range(0, 8)] | None = None
    """RandAugment: how many random operations an image; 0 turns it off."""
    magnitude: Annotated[int, Range(0, 30)] | None = None
    """RandAugment's strength, from 0 to 30."""
    trivial: bool | None = None
    """TrivialAugment: one random operation of random strength an image."""
    views: NonNegativeInt = 0
    """With model.freeze backbone: augment each image in so many ways, once, and keep what the backbone sees; epochs
    after that cost next to nothing. 0: each epoch augments anew."""
    strength: Annotated[float, Range(0, 3)] = 1.0
    """Multiplies all strengths above from rotate to erase, and magnitude; a way to search them together."""
    test_flip: bool = False
    """Average each prediction with that of the mirrored image; doubles the cost of a prediction."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    section: ClassVar[str] = "model"

    name: str = "resnet9_16"
    """cnn, plain7_32, plain7_40, resnet9_16, resnet9_32, resnet9_64, vit_tiny, any torchvision classifier
    (resnet18, ...), timm/NAME, or import.path:Class."""
    weights: str | None = None
    """Where to start from: imagenet (downloaded once), or a .safetensors or .pth file. Not set: from scratch."""
    freeze: Literal["none", "backbone"] = "none"
    """backbone: train the new head alone."""
    freeze_epochs: PositiveInt | None = None
    """With model.freeze backbone: thaw it after this many epochs. Not set: never."""
    dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the features dropped before the head, where the model has such a place."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalisation in the project's own nets; group does not depend on the batch or the workers."""
    stem: Literal["auto", "small", "original"] = "auto"
    """First layers of torchvision's nets: small keeps the resolution of small images (auto: up to 64 pixels)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    section: ClassVar[str] = "optimizer"

    name: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    """sgd has Nesterov momentum. muon makes the most of few epochs, from scratch."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate, for the batch as it is set (nothing scales it)."""
    momentum: Annotated[float, Range(0, 0.999)] = 0.9
    """Momentum of sgd and muon; the first beta of adam and adamw."""
    weight_decay: NonNegativeFloat = 0.05
    """Decay of the weights, not of biases and norms: coupled in sgd and adam (try 5e-4), decoupled
    in adamw and muon."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; larger ones are scaled down. Not set: no clipping."""
    accumulate: PositiveInt = 1
    """Batches summed before each update, for an effective batch larger than memory."""
    ema: Annotated[float, Range(0, 0.99999)] | None = None
    """Decay a step of the averaged weights that are validated and kept. Not set: no averaging."""
    backbone_scale: PositiveFloat = 0.1
    """Learning rate of pretrained weights, as a share of the new head's."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Section):
    section: ClassVar[str] = "schedule"

    name: Literal["cosine", "onecycle", "linear", "step", "plateau", "constant"] = "onecycle"
    """How the learning rate falls after the warm-up; onecycle turns the momentum against it too."""
    warmup: Fraction = 0.2
    """Share of all steps in which the learning rate rises to its peak."""
    final: Fraction = 0.0
    """Where it ends, as a share of the peak."""
    step_epochs: PositiveInt = 10
    """step: epochs between two falls. plateau: epochs without gain before a fall."""
    step_factor: Annotated[float, Range(0, 1, exclusive=True)] = 0.1
    """step and plateau: what a fall multiplies the learning rate with."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    section: ClassVar[str] = "loss"

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    """focal weighs down the images that are right already (for hard, unbalanced classes)."""
    smoothing: Annotated[float, Range(0, 0.9)] = 0.0
    """Label smoothing: the share of certainty spread over all classes."""
    gamma: NonNegativeFloat = 2.0
    """focal: how strongly easy images are weighed down."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class counts alike, however many images it has."""
    adjustment: NonNegativeFloat = 0.0
    """Logit adjustment, for unbalanced classes: how strongly the loss expects frequent ones (1: by their share)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    section: ClassVar[str] = "train"

    epochs: PositiveInt = 20
    """Passes over the training images."""
    minutes: PositiveFloat | None = None
    """Stop after this many minutes of training, with the best model so far. Not set: no limit."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better validation score. Not set: run all epochs."""
    metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    """The validation score that chooses the best epoch."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights become the model."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the heavy arithmetic. auto: bf16 where the processor has it, else fp32."""
    channels_last: bool = True
    """Memory layout with the channels innermost: faster convolutions."""
    compile: bool = False
    """Compile the model first: worth it for long runs on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: PositiveInt | None = None
    """CPU threads a worker. Not set: all that it may use."""
    track: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Tell these of each epoch too, beside TensorBoard; they find their server as their own tools do."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    section: ClassVar[str] = "checkpoint"

    epochs: PositiveInt = 1
    """Epochs between two checkpoints; the last epoch always has one."""
    minutes: PositiveFloat | None = 10.0
    """Minutes between two checkpoints in the middle of an epoch; none: at ends of epochs alone."""
    steps: PositiveInt | None = None
    """Steps between two checkpoints in the middle of an epoch. Not set: at ends of epochs alone."""


@dataclass(frozen=True, kw_only=True)
class WorkersConfig(Section):
    section: ClassVar[str] = "workers"

    count: PositiveInt = 1
    """Processes that train together. More than 1 run on Ray: RAY_ADDRESS, or a cluster on this machine."""
    min: PositiveInt | None = None
    """Fewest workers to go on with where nodes are lost; it grows back to workers.count. Not set: workers.count."""
    wait: NonNegativeFloat = 0.0
    """Minutes to wait at the start for a cluster that grows; 0: what it has no room for is refused."""
    cpus: PositiveFloat | None = None
    """CPU cores a Ray worker (or a trial) reserves. Not set: 1; a search with few minutes gives its trials more."""
    gpus: NonNegativeFloat | None = None
    """GPUs a Ray worker (or a trial) reserves. Not set: 1 where the cluster has GPUs, else 0."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Section):
    section: ClassVar[str] = "search"

    trials: PositiveInt = 8
    """Trainings to try, the recipe itself first."""
    minutes: PositiveFloat | None = None
    """Minutes for all of it, the last training and the test included. Not set: until all trials ended."""
    epochs: PositiveInt | None = None
    """Epochs a trial. Not set: train.epochs."""
    vary: tuple[str, ...] = ()
    """What to search: NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C, as in optimizer.lr=1e-3..1:log.
    Not set (and no search.space): learning rate, batch size, architecture, decay, augmentation, smoothing."""
    space: str | None = None
    """YAML file of what to search: a list of values, or {low, high, log, when}, by dotted name."""
    objective: tuple[Literal["accuracy", "macro_f1", "loss", "latency", "size", "epochs"], ...] = ("accuracy",)
    """What is searched for, with commas between: validation accuracy, macro_f1 or loss; latency (ms an image), size
    (parameters) or epochs. With several, the best compromises are found, and the first decides among them."""
    algorithm: Literal["tpe", "gp", "random", "grid"] = "tpe"
    """tpe and gp learn from earlier trials (Optuna), random does not, grid tries every combination of values."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    """What ends weak trials early: asha, hyperband (asha with several graces) or median. pbt lets the weak continue
    from copies of the strong, with changed settings."""
    grace: PositiveInt | None = None
    """Epochs that every trial may run; pbt: epochs between two changes. Not set: a ninth of the epochs, or
    a third where a ninth has fewer than 100 steps."""
    start_from: str | None = None
    """Folder of an earlier search: its best settings are tried first, and what it saw is not forgotten."""
    portfolio: bool = True
    """Try settings that were good on other data sets before drawing new ones (where search.vary and search.space
    are not set), and rank pretrained backbones by search.probe."""
    probe: tuple[str, ...] = ()
    """Pretrained backbones, NAME=WEIGHTS, of which the best for these images is chosen in seconds before the search:
    resnet18=imagenet timm/tf_efficientnet_lite0=w.pth."""
    longer: bool = True
    """With search.minutes that hold four trials or more: train the best settings for more epochs in the second half."""
    final: bool | None = None
    """Train the winner once more, on training and validation images together. Not set: where validation has more than
    a seventh of them, so that it pays."""
    final_epochs: PositiveInt | None = None
    """Epochs of that last training. Not set: the winner's, or train.epochs where search.minutes made trials shorter."""
    keep: PositiveInt = 3
    """Best trials whose model and checkpoints stay on disk."""
