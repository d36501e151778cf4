"""Label images in the browser, the most useful first: python jobs/label.py runs/NAME incoming/

Images are chosen from a folder: typical ones while labels are few, then those of which the model is least certain; of
near duplicates one at most. Without a run, a pretrained backbone and the labels so far decide. The answers go into a
manifest, which train takes, as they are given. The same command goes on, also after a crash.
"""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.fields import Fraction, PositiveInt, Range
from classifier.errors import ConfigError

from .cli.command import main
from .cli.console import RunLog
from .cli.environment import command_line
from .cli.interrupts import Interrupts
from .cli.verb import DATA_SETTINGS, ModelOptions, Request, Verb, positional

if TYPE_CHECKING:
    from classifier.config.sections import DataConfig
    from classifier.label.assignment import Assignment

POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class LabelOptions(ModelOptions):
    paths: tuple[str, ...] = positional(
        "Folder of a run or a bundle, if there is one, then the folder of images.", default=()
    )
    count: Annotated[int, Range(1, 1000)] = 100
    """Images to choose at a time."""
    errors: str | None = None
    """Look at images of this run or bundle whose labels are probably wrong, instead of choosing new ones."""
    manifest: str | None = None
    """CSV manifest for the labels; one that is there is extended. If unset, FOLDER-labels.csv beside the folder."""
    classes: tuple[str, ...] = ()
    """Classes to begin with, where there is no model; others can be typed on the page."""
    annotator: str | None = None
    """Your name, where several people label: each has answers of their own."""
    overlap: Fraction = 1.0
    """Share of your images that are those of the other annotators, if there are such."""
    pool: PositiveInt = 20_000
    """Images to choose from, at most; of a larger folder they are drawn at random."""
    choice_seed: int = 0
    """Seed of the choice: the same images, labels and seed give the same choice."""
    port: Annotated[int, Range(0, 65535)] = 0
    """Port of the page, on this machine only; 0: any free one."""
    data: str | None = None
    """Of --errors: path of the data set, if it has moved."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="label",
    examples=(
        "incoming/ --classes cat dog",
        "runs/NAME incoming/ --count 50",
        "incoming/ --annotator anna --overlap 0.2",
        "--errors runs/NAME",
    ),
    options=LabelOptions,
    settings=("data.task", *DATA_SETTINGS),
)


def label(request: Request) -> None:
    """Choose images, and show the page until Ctrl-C or SIGTERM."""
    from classifier.label.answers import DEFAULT_ANNOTATOR, AnswerLog
    from classifier.label.labelling import Labelling
    from classifier.label.page.server import Page
    from classifier.runtime.threads import use_free_cores

    options, config = request.options, _choose_data(request)
    manifest = _name_manifest(options, Path(config.path))
    folder = manifest.with_suffix(".answers")
    annotator = options.annotator or DEFAULT_ANNOTATOR
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}): give another --manifest") from None
    with RunLog(Path(os.devnull)) as log, AnswerLog(folder, annotator) as answers:
        with use_free_cores(request.load, log.info, "OMP_NUM_THREADS"):
            open_ = _open_suspects if options.errors else _open_unlabelled
            assignment = open_(request, config, manifest, folder, log)
        page = Page(Labelling(assignment, answers), config, options.port)
        try:
            log.info(f"label in the browser, and end with Ctrl-C: {page.url}")
            log.clear()
            with Interrupts() as interrupts:
                while not interrupts.stop_requested:
                    time.sleep(POLL_SECONDS)
        finally:
            page.close()
        count = sum(one.labels is not None for one in answers.standing.values())
        log.info(f"{count:,} images labelled by {annotator}")
        is_inside = Path(os.path.abspath(config.path)).is_relative_to(manifest.parent)
        outside = () if is_inside else ("--data.outside", "true")
        if len(options.paths) == 2:
            log.next_step("update the model with them", command_line("update", options.paths[0], manifest, *outside))
        log.next_step("train on them", command_line("train", manifest, *outside))


def _choose_data(request: Request) -> "DataConfig":
    """Return the settings of the folder of images, or of the data set of the run. ConfigError for a mistake."""
    options = request.options
    config = Experiment().override_all(request.changes).data
    if not options.errors:
        if not 1 <= len(options.paths) <= 2:
            raise ConfigError("give a folder of images, and before it a run if there is one; or --errors RUN")
        path = Path(options.paths[-1])
        if not path.is_dir():
            raise ConfigError(f"{path} is not a folder: give one with the images to label")
        return dataclasses.replace(config, path=str(path))
    if options.paths:
        raise ConfigError(f"--errors looks at the data of {options.errors}: leave {options.paths[0]} out")
    from classifier.bundle import bundle
    from classifier.evaluation.training_data import find_config

    settings = {name: value for name, value in request.changes.items() if name != "data.task"}
    return find_config(options.errors, bundle.read(options.errors), options.data, settings)


def _name_manifest(options: LabelOptions, data: Path) -> Path:
    """Return the manifest: beside the images, so that it can name them, if no other is given."""
    if options.manifest:
        manifest = Path(os.path.abspath(options.manifest))
        if not manifest.parent.is_dir():
            raise ConfigError(f"--manifest {options.manifest}: there is no folder {manifest.parent}: make it first")
        return manifest
    whole = Path(os.path.abspath(data))
    name = whole.name if whole.is_dir() else whole.stem
    return whole.with_name(f"{name}-{'corrected' if options.errors else 'labels'}.csv")


def _open_unlabelled(request: Request, config: "DataConfig", manifest: Path, folder: Path, log: RunLog) -> "Assignment":
    """Compute the features of the images in the folder, and choose some."""
    from classifier.label.answers import DEFAULT_ANNOTATOR
    from classifier.label.backbone import open_bundle, open_pretrained
    from classifier.label.manifest import LabelManifest
    from classifier.label.pool import FEATURES, build_pool, list_files, scan_files
    from classifier.label.unlabelled import ChoiceSettings, Unlabelled

    options = request.options
    *model, images = options.paths
    files, count, notes = list_files(Path(images), options.pool, options.choice_seed)
    for note in notes:
        log.warning(f"note: {note}")
    if count > len(files):
        log.info(f"{count:,} images, of which {len(files):,} drawn at random are considered (--pool)")
    with log.progress_bar("scanning images", len(files)) as advance:
        scan = scan_files(files, config, advance)
    shorter = sorted(scan.sizes_K2.min(1).tolist()) or [1]
    side = shorter[len(shorter) // 2]
    backbone = open_bundle(model[0], config, options.device) if model else open_pretrained(side, config, options.device)
    with log.progress_bar("computing features", len(scan.usable_N)) as advance:
        pool = build_pool(scan, backbone, config, folder / FEATURES, advance)
    if pool.unreadable:
        what = "1 image" if pool.unreadable == 1 else f"{pool.unreadable:,} images"
        log.warning(f"{what} cannot be read")
    groups = len(set(pool.groups_N.tolist()))
    log.info(f"{len(pool.files):,} images, {groups:,} without near duplicates, by {backbone.description}")
    is_multilabel = "multilabel" in (backbone.task, config.task)
    table = LabelManifest(manifest, folder, is_multilabel=is_multilabel, has_annotators=options.annotator is not None)
    settings = ChoiceSettings(
        annotator=options.annotator or DEFAULT_ANNOTATOR,
        count=options.count,
        seed=options.choice_seed,
        overlap=options.overlap,
        earlier=backbone.training_images,
    )
    names = backbone.class_names or options.classes
    title = f"Label {Path(images).resolve().name}"
    assignment = Unlabelled(pool, table, folder, names, settings, title=title, is_multilabel=is_multilabel)
    log.info(f"{len(assignment.list_items()):,} images to label, chosen as {assignment.way}")
    return assignment


def _open_suspects(request: Request, config: "DataConfig", manifest: Path, folder: Path, log: RunLog) -> "Assignment":
    """Find labels that are probably wrong in the data set of a run."""
    from classifier import data
    from classifier.bundle import bundle
    from classifier.data.audit.scan import scan_images
    from classifier.evaluation.label_errors import compute_features, find_errors
    from classifier.label.manifest import LabelManifest
    from classifier.label.suspects import Suspects, refuse_packed

    options, about = request.options, bundle.read(request.options.errors)
    source = data.open_source(config)
    with log.progress_bar("scanning images", len(source.labels_N)) as advance:
        scan = scan_images(source, config, advance)
    refuse_packed(scan)
    experiment = dataclasses.replace(Experiment.from_dict(about.experiment), data=config)
    experiment = experiment.override("train.device", options.device)
    errors = find_errors(scan, compute_features(scan, Path(options.errors), experiment))
    is_multilabel = source.label_sets is not None
    table = LabelManifest(manifest, folder, is_multilabel=is_multilabel, has_annotators=False)
    log.info(f"{len(errors[: options.count]):,} of {len(errors):,} labels that are probably wrong are shown (--count)")
    return Suspects(scan, errors[: options.count], config, table, folder)


if __name__ == "__main__":
    main(VERB, label)
