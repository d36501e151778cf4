"""The sections of an experiment: every setting with its type, range and default; its docstring is its --help text.

This module imports no torch, so that `--help` is fast.
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

Task = Literal["multiclass", "multilabel", "ordinal", "nested"]
"""What an answer is: a class, any number of labels, a grade on a scale, or a class that is part of a larger one."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    section: ClassVar[str] = "data"

    path: str = "digits"
    """What to learn from: a folder with one subfolder per class, a .zip or .tar of one, tar shards (WebDataset),
    Parquet tables that hold the images, a manifest (.csv, .parquet: path,label[,split]), a list (.txt, .lst), a folder
    of IDX files, or the name of a known data set (digits, cifar10, ...)."""
    unlabelled: str | None = None
    """Semi-supervised learning (see semi): images to learn from beside those of data.path, whose labels, if they have
    any, are not used: a folder of images at any depth, an archive of one, a list or manifest with or without labels, or
    whatever else data.path may be. Copies of validation and test images are left out."""
    task: Literal["auto", "multiclass", "multilabel", "ordinal", "nested"] = "auto"
    """What an answer is: one class (multiclass), any number of labels (multilabel), a grade of ordered ones (ordinal),
    or a class in a class (nested: animal/dog). auto: multilabel where images have several labels, else multiclass."""
    order: str | None = None
    """With data.task ordinal: the names of the grades from the lowest to the highest, separated by commas. If unset,
    they must be numbers."""
    batch: PositiveInt = 64
    """Global batch size, across all workers; each optimizer step takes optimizer.accumulate such batches."""
    batch_auto: bool = False
    """Find the fastest batch size that fits in memory, once, and use it instead of data.batch."""
    size: Annotated[int, Range(4, 2048)] | None = None
    """Image size: the side of the square that the model sees, in pixels. If unset, derived from the images."""
    crop_scale: Annotated[float, Range(1, 4)] = 1.0
    """Keep the training images this many times larger than data.size, so that random crops show real pixels instead of
    enlarged ones; never larger than most images are."""
    channels: Literal[1, 3] | None = None
    """1 for grayscale, 3 for RGB. If unset, derived from the images."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How to make an image square: crop its centre, pad its short side, or stretch it."""
    validation: Fraction = 0.1
    """Fraction of the images used for validation, where the data set has no validation split."""
    test: Fraction = 0.2
    """Fraction of the images held out for the final test, where the data set has no test split."""
    split_seed: NonNegativeInt = 0
    """Seed of the random splits. Separate from `seed`, so that runs with different seeds share a test split."""
    split_from: str | None = None
    """Folder of an earlier run (or its splits.safetensors): images that it had stay in their splits, only new ones are
    drawn. If unset, images of classes that were too small, and copies and groups that new images connect, may move."""
    folds: Annotated[int, Range(2, 1000)] | None = None
    """Cross-validation: number of folds, one of which replaces the test split (see crossval)."""
    fold: NonNegativeInt = 0
    """Index of the fold that is the test split, from 0 to data.folds - 1."""
    limit: PositiveInt | None = None
    """Train on this many of the training images, stratified by class. If unset, on all of them."""
    balance: Fraction = 0.0
    """Oversampling of rare classes: 0 samples each image once per epoch, 1 samples all classes equally often."""
    root: str = "data"
    """Folder that named data sets are read from and downloaded to."""
    download: bool = False
    """Download a named data set if it is not in data.root."""
    group: str | None = None
    """Keep images of the same group in one split: a column of the manifest (such as patient), or, for files, a regular
    expression with one group that extracts it from their names, such as '(\\w+)_\\d+\\.jpg'."""
    columns: tuple[str, ...] = ()
    """Columns of a manifest, a Parquet table or shards' JSON that join the image: their names, separated by blanks or
    commas, or all. NAME:KIND gives the kind: number, category, date or text. If unset, only the images are used."""
    only: str | None = None
    """CSV of id,label,split: use only these images of data.path (written by audit --write-manifest)."""
    outside: bool = False
    """Allow a manifest to list files outside its own folder."""
    max_corrupt: Fraction = 0.01
    """Maximum fraction of unreadable images: up to it they are skipped with a warning, above it the data is refused."""
    max_pixels: PositiveInt = 100_000_000
    """Treat an image with more pixels than this as unreadable (decompression bomb)."""
    max_bytes: PositiveInt = 100_000_000
    """Treat an image file larger than this as unreadable."""
    max_seconds: PositiveFloat = 30.0
    """Treat an image that takes longer than this to decode as unreadable."""
    stream: bool = False
    """Read images on demand, again in every epoch, for data sets larger than the disk. All are decoded once
    before, to find those that cannot be used; data.cache keeps only that."""
    window: PositiveInt = 16
    """With data.stream: size of the shuffle buffer in memory, in chunks of 256 consecutive images."""
    cache: str | None = "~/.cache/classifier"
    """Cache directory for decoded images on a local disk, shared by all runs; none: decode into memory in each run."""
    cache_as: Literal["auto", "pixels", "jpeg"] = "auto"
    """How the cache stores images. jpeg: at quality 95, in a fifth of the space, decoded again at each use; auto:
    pixels, or jpeg if the pixels would take more than half of data.cache_gb."""
    cache_gb: PositiveFloat = 50.0
    """Maximum size of data.cache in GB; the least recently used images are evicted."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    section: ClassVar[str] = "augment"

    policy: Literal["auto", "none", "symbols", "objects", "photos"] = "auto"
    """Where unset strengths come from. auto: chosen for the data set (letters and digits are never flipped)."""
    flip: Fraction | None = None
    """Probability of a horizontal flip."""
    rotate: Annotated[float, Range(0, 180)] | None = None
    """Maximum rotation in either direction, in degrees."""
    scale: Annotated[float, Range(0, 0.9)] | None = None
    """Maximum change of scale in either direction, as a fraction (0.1: 90 % to 110 %)."""
    shear: Annotated[float, Range(0, 60)] | None = None
    """Maximum shear in either direction, in degrees."""
    shift: Annotated[float, Range(0, 0.5)] | None = None
    """Maximum translation along each axis, as a fraction of the image size (padded crop)."""
    crop: Annotated[float, Range(0, 1)] | None = None
    """Minimum area of a random resized crop, as a fraction of the image; 1 disables it."""
    brightness: Fraction | None = None
    """Maximum change of brightness in either direction, as a fraction."""
    contrast: Fraction | None = None
    """Maximum change of contrast in either direction, as a fraction."""
    saturation: Fraction | None = None
    """Maximum change of saturation in either direction, as a fraction; RGB images only."""
    hue: Annotated[float, Range(0, 0.5)] | None = None
    """Maximum hue shift in either direction, as a fraction of the colour circle; RGB images only."""
    erase: Fraction | None = None
    """Probability of random erasing (a random rectangle is blanked)."""
    mixup: NonNegativeFloat | None = None
    """Alpha of mixup's Beta distribution; 0 disables mixup."""
    cutmix: NonNegativeFloat | None = None
    """Alpha of CutMix's Beta distribution; 0 disables CutMix."""
    randaugment: Annotated[int, Range(0, 8)] | None = None
    """RandAugment: number of random operations per image; 0 disables it."""
    magnitude: Annotated[int, Range(0, 30)] | None = None
    """RandAugment: magnitude, from 0 to 30."""
    trivial: bool | None = None
    """TrivialAugment: one random operation of random strength per image."""
    views: NonNegativeInt = 0
    """With model.freeze backbone: augment each image this many times and cache the backbone features of these views;
    later epochs cost almost nothing. 0: augment anew in every epoch."""
    strength: Annotated[float, Range(0, 3)] = 1.0
    """Multiplies magnitude and all strengths above from rotate to erase; one knob to search them together."""
    test_flip: bool = False
    """Test-time augmentation: average the predictions for each image and its mirror image. Doubles inference time. Not
    done where augment.policy auto finds symbols, unless augment.flip is set."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    section: ClassVar[str] = "model"

    name: str = "resnet9_16"
    """cnn, plain7_32, plain7_40, resnet9_16, resnet9_32, resnet9_64, vit_tiny, any torchvision classifier
    (resnet18, ...), timm/NAME, or import.path:Class."""
    weights: str | None = None
    """Pretrained weights: imagenet (downloaded once, unless installed), or a .safetensors or .pth file. If unset, train
    from scratch. Their head is kept unless the file names other classes than those of the data."""
    probe: bool = False
    """Linear probing: with pretrained weights, the first epoch fits the new head to the features of the frozen backbone
    by logistic regression; further epochs train the whole model from there."""
    freeze: Literal["none", "statistics", "early", "backbone"] = "none"
    """backbone: train only the new head. early: train the head and the last third of the layers. statistics: train all.
    early and statistics keep the running statistics of pretrained batch norms, which few images would spoil."""
    freeze_epochs: PositiveInt | None = None
    """With model.freeze backbone: unfreeze the backbone after this many epochs. If unset, never."""
    dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Dropout rate before the head, in models that support it."""
    drop_path: Annotated[float, Range(0, 0.9)] | None = None
    """Stochastic depth: rate at which training skips the last residual block; earlier ones less often. If unset, the
    model's own: 0 in timm's models."""
    fusion: Literal["auto", "mlp", "trees", "average"] = "auto"
    """How columns join the image (data.columns). mlp: a layer over both, trained with the model. trees: decision trees
    on image features and columns. average: of an image model and of trees on the columns. auto: the best on held-out
    images."""
    modality_dropout: Annotated[float, Range(0, 0.4)] = 0.1
    """With data.columns: rate at which training leaves out the image, all columns of a sample, or a single column, so
    that predictions need not have them all."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalization in the built-in models; group is independent of batch size and number of workers."""
    stem: Literal["auto", "small", "original"] = "auto"
    """First layers of torchvision models: small keeps the resolution of small images (auto: for up to 64 pixels)."""
    widths: tuple[str, ...] = ()
    """Layers of a pruned model that are narrower than its architecture, as compress writes them: LAYER=OUTxIN."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    section: ClassVar[str] = "optimizer"

    name: Literal["sgd", "adam", "adamw", "lamb", "muon"] = "adamw"
    """sgd uses Nesterov momentum; muon learns most in few epochs from scratch; lamb is for batches of thousands."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate, used as given (not scaled with the batch size)."""
    momentum: Annotated[float, Range(0, 0.999)] = 0.9
    """Momentum of sgd and muon; beta1 of adam, adamw and lamb."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay, not applied to biases and normalization layers: coupled in sgd and adam (try 5e-4), decoupled
    in adamw and muon, before the scaling of each layer in lamb."""
    clip: PositiveFloat | None = None
    """Maximum gradient norm. If unset, gradients are not clipped."""
    accumulate: PositiveInt = 1
    """Gradient accumulation: batches per optimizer step, for effective batches larger than memory."""
    ema: Annotated[float, Range(0, 0.99999)] | None = None
    """EMA decay per step; the averaged weights are validated and saved. If unset, no averaging."""
    backbone_scale: PositiveFloat = 0.1
    """Learning rate of pretrained weights, as a multiple of the new head's."""
    layer_decay: Annotated[float, Range(0, 1, exclusive=True)] | None = None
    """Layer-wise learning rate decay: each layer's learning rate, as a multiple of that of the next layer towards the
    head; replaces optimizer.backbone_scale."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Section):
    section: ClassVar[str] = "schedule"

    name: Literal["cosine", "onecycle", "linear", "step", "plateau", "constant"] = "onecycle"
    """Learning rate schedule after warm-up; onecycle also cycles the momentum, inversely."""
    warmup: Fraction = 0.2
    """Fraction of all steps spent on warm-up."""
    final: Fraction = 0.0
    """Final learning rate, as a fraction of the peak."""
    step_epochs: PositiveInt = 10
    """step: epochs between decays. plateau: epochs without improvement before a decay."""
    step_factor: Annotated[float, Range(0, 1, exclusive=True)] = 0.1
    """step and plateau: factor by which a decay multiplies the learning rate."""
    size_from: Annotated[float, Range(0.1, 1)] = 1.0
    """Progressive resizing: training images of the first quarter of the epochs are made smaller, to this fraction of
    data.size; in four stages they grow to schedule.size_to."""
    size_to: Annotated[float, Range(0.1, 1)] = 1.0
    """Size of the training images in the last quarter of the epochs, as a fraction of data.size, which validation and
    predictions use."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    section: ClassVar[str] = "loss"

    name: Literal["cross_entropy", "focal", "bce", "asymmetric"] = "cross_entropy"
    """focal down-weights easy images (for hard, imbalanced data sets). bce: binary cross-entropy, a yes or no for each
    class; images mixed by mixup or CutMix are of both classes. Of several labels an image, cross_entropy is binary,
    too, and asymmetric down-weights the many labels that an image clearly lacks."""
    smoothing: Annotated[float, Range(0, 0.9)] = 0.0
    """Label smoothing: probability mass spread over all classes."""
    gamma: NonNegativeFloat = 2.0
    """focal: focusing parameter; higher values down-weight easy images more."""
    gamma_on: NonNegativeFloat = 0.0
    """asymmetric: focusing parameter of the labels that an image has."""
    gamma_off: NonNegativeFloat = 4.0
    """asymmetric: focusing parameter of the labels that it lacks."""
    clip: Annotated[float, Range(0, 0.5)] = 0.05
    """asymmetric: a label that an image lacks, with a probability up to this, does not count."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight classes inversely to their frequency."""
    adjustment: NonNegativeFloat = 0.0
    """Logit adjustment for imbalanced classes: strength of the class prior in the loss (1: the class frequencies)."""
    distill: Fraction = 0.0
    """Distillation, set by compress: share of the loss that is the divergence from a teacher's probabilities."""
    distill_temperature: PositiveFloat = 2.0
    """Temperature that softens the probabilities of teacher and student."""


@dataclass(frozen=True, kw_only=True)
class SemiConfig(Section):
    section: ClassVar[str] = "semi"

    method: Literal["softmatch", "freematch"] = "softmatch"
    """With data.unlabelled: how the model's own answers become labels. softmatch: all count, by their confidence.
    freematch: those above a threshold of each class, which rises with the model's confidence."""
    ratio: PositiveInt = 7
    """Unlabelled images in a step for each labelled one of data.batch. An epoch then passes the unlabelled images once,
    and the labelled ones as often as that takes."""
    start: Fraction = 0.0
    """Fraction of all steps that learn from the labels alone, at first; they cost little."""
    weight: NonNegativeFloat = 1.0
    """Weight of the loss on unlabelled images; 0: the labels alone, in as many steps, to compare with."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    section: ClassVar[str] = "train"

    epochs: PositiveInt = 20
    """Passes over the training images."""
    minutes: PositiveFloat | None = None
    """Stop after this many minutes of training and keep the best model so far. If unset, no time limit."""
    patience: PositiveInt | None = None
    """Early stopping: stop after this many epochs without a better validation score. If unset, run all epochs."""
    metric: Literal[
        "auto", "accuracy", "macro_f1", "map", "micro_f1", "quadratic_kappa", "mean_absolute_error", "loss"
    ] = "auto"
    """Validation metric that selects the best epoch. auto: accuracy, map (mean average precision) of several labels, or
    quadratic_kappa of ordered grades."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose weights become the final model."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numeric precision of forward and backward passes. auto: bf16 where the hardware supports it, else fp32."""
    int8: bool = False
    """Quantization-aware training: the forward pass rounds weights and activations to 8 bits."""
    channels_last: bool = True
    """Use the channels_last memory format: faster convolutions."""
    compile: bool = False
    """Compile the model with torch.compile: pays off in long runs on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: PositiveInt | None = None
    """CPU threads per worker. If unset, as many as there are free cores when the run starts."""
    track: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Experiment trackers to log each epoch to, besides TensorBoard; configure their servers as usual for them."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    section: ClassVar[str] = "checkpoint"

    epochs: PositiveInt = 1
    """Save a checkpoint every this many epochs; the last epoch is always saved."""
    minutes: PositiveFloat | None = 10.0
    """Also save every this many minutes within an epoch; none: only at the ends of epochs."""
    steps: PositiveInt | None = None
    """Also save every this many steps within an epoch. If unset, only at the ends of epochs."""


@dataclass(frozen=True, kw_only=True)
class WorkersConfig(Section):
    section: ClassVar[str] = "workers"

    count: PositiveInt = 1
    """Processes for data-parallel training. More than 1 use Ray: the cluster at RAY_ADDRESS, or one on this machine."""
    min: PositiveInt | None = None
    """Minimum number of workers to continue with after nodes are lost; training scales back up to workers.count. If
    unset, workers.count."""
    wait: NonNegativeFloat = 0.0
    """Minutes to wait at the start for a cluster to scale up; 0: fail if it lacks the resources."""
    cpus: PositiveFloat | None = None
    """CPU cores reserved per Ray worker or trial. If unset, 1; a search with few minutes gives its trials more."""
    gpus: NonNegativeFloat | None = None
    """GPUs reserved per Ray worker or trial. If unset, 1 if the cluster has GPUs, else 0."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Section):
    section: ClassVar[str] = "search"

    trials: PositiveInt = 8
    """Number of trials; the first uses the recipe's own settings."""
    minutes: PositiveFloat | None = None
    """Time budget of the search in minutes, refit and test included. If unset, it ends when all trials have ended."""
    epochs: PositiveInt | None = None
    """Epochs per trial. If unset, train.epochs."""
    vary: tuple[str, ...] = ()
    """Settings to search: NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C, for example optimizer.lr=1e-3..1:log.
    If unset (and no search.space): learning rate, batch size, architecture, weight decay, augmentation, smoothing."""
    space: str | None = None
    """YAML file with the search space: a list of values, or {low, high, log, when}, by dotted name."""
    objective: tuple[
        Literal["accuracy", "macro_f1", "map", "quadratic_kappa", "loss", "latency", "size", "epochs"], ...
    ] = ("accuracy",)
    """Objectives, separated by commas; map is of several labels, quadratic_kappa of grades, latency in ms per image,
    size in parameters. With several, the first one selects the winner from the Pareto front."""
    algorithm: Literal["tpe", "gp", "random", "grid"] = "tpe"
    """tpe and gp learn from earlier trials (Optuna); random samples; grid tries all combinations of values."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    """Stops weak trials early: asha, hyperband (asha with several grace periods) or median. pbt lets weak trials
    continue from copies of strong ones, with perturbed settings."""
    grace: PositiveInt | None = None
    """Grace period: epochs before a trial can be stopped; pbt: epochs between perturbations. If unset, a ninth of the
    epochs, or a third where a ninth has fewer than 100 steps."""
    start_from: str | None = None
    """Folder of an earlier search, to warm-start from: its best settings are tried first, and the algorithm learns from
    its results."""
    portfolio: bool = True
    """Try settings that worked on other data sets before sampling new ones (unless search.vary or search.space is
    set), and rank pretrained backbones with search.probe."""
    probe: tuple[str, ...] = ()
    """Pretrained backbones, as NAME=WEIGHTS; before the search, linear probing picks the best one within seconds:
    resnet18=imagenet timm/tf_efficientnet_lite0=w.pth."""
    longer: bool = True
    """If search.minutes allows four trials or more: use the second half to train the best settings for more epochs."""
    final: bool | None = None
    """Refit the winner on training and validation images together. If unset, only where validation has more than a
    seventh of these images, so that it pays off."""
    final_epochs: PositiveInt | None = None
    """Epochs of the refit. If unset, the winner's, or train.epochs if search.minutes shortened the trials."""
    keep: PositiveInt = 3
    """Number of best trials whose models and checkpoints stay on disk."""
