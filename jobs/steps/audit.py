"""Audit a data set: scan it with a progress bar, log the findings, and write page, table and manifest."""

import csv
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.audit.checks import draw_splits_for, run_checks, select_clean
from classifier.data.audit.column_checks import check_columns
from classifier.data.audit.finding import KINDS, Finding
from classifier.data.audit.scan import ScanResult, scan_images
from classifier.data.decoding.decode import DecodeError
from classifier.data.decoding.image_file import encode_png
from classifier.data.infer_shape import infer_shape
from classifier.data.labels.label_sets import list_classes
from classifier.data.readers.file_bytes import read_image_bytes
from classifier.data.readers.source import Source, UntrainableError
from classifier.data.split_names import SPLITS
from classifier.errors import DataError, list_few
from classifier.report import audit_page
from classifier.runs.folder import RunFolder
from classifier.storage.atomic import write_atomically
from classifier.text import escape_all, escape_surrogates

from ..cli.console import RunLog
from ..cli.environment import command_line

FINDINGS = "findings.parquet"


def run_audit(experiment: Experiment, options: Any, run: RunFolder, log: RunLog) -> None:
    """Scan the images, log and write the findings, among them what a training would refuse."""
    began = time.perf_counter()
    config = experiment.data
    source, reasons = _open_source(config)
    with log.progress_bar(f"scanning {source.name}", len(source.labels_N)) as advance:
        scan = scan_images(source, config, advance)
    splits_K, refusals = draw_splits_for(scan, config)
    size, _ = infer_shape(source, config)
    if options.model and len(scan.usable_N):
        from classifier.evaluation import label_errors

        features_KF = label_errors.compute_features(scan, Path(options.model), experiment)
        findings = run_checks(scan, splits_K, size, features_KF)
        findings += label_errors.check_labels(scan, features_KF)
    else:
        findings = run_checks(scan, splits_K, size)
    findings += check_columns(scan, splits_K, config)
    findings = [*(Finding(kind="refused", text=reason) for reason in reasons), *refusals, *findings]
    seconds = time.perf_counter() - began
    counts = _describe_counts(scan, splits_K, seconds)
    log.info(counts)
    for finding in source.findings:
        log.info(f"note: {finding}")
    log.info(_summarize([finding for finding in findings if finding.kind != "reading"]))
    fix_command = None
    if options.write_manifest:
        fix_command = write_manifest(scan, config, splits_K, findings, Path(options.write_manifest), log)
    page = audit_page.write(
        run.folder / audit_page.NAME,
        name=source.name,
        counts=counts,
        findings=findings,
        content=_content_reader(source, config),
        file=_file_finder(source),
        fix_command=fix_command,
        max_pixels=config.max_pixels,
        max_seconds=config.max_seconds,
    )
    pq.write_table(to_table(findings), run.folder / FINDINGS)
    by_kind = Counter(finding.kind for finding in findings)
    run.write_result("audit", "finished", config=experiment.as_dict(), findings=dict(by_kind), audit_seconds=seconds)
    log.info(f"report: {page}")


def _open_source(config: DataConfig) -> tuple[Source, Sequence[str]]:
    """Open the data set, and say why a training would refuse it. DataError if it cannot be opened at all."""
    try:
        return data.open_source(config), ()
    except UntrainableError as error:
        return error.source, error.reasons


def to_table(findings: list[Finding]) -> pa.Table:
    """One row per finding: kind, severity, text, mend (the fix), ids, likeness (its score)."""
    rows = [
        {"kind": f.kind, "severity": f.severity, "text": f.text, "mend": f.fix, "ids": f.ids, "likeness": f.score}
        for f in findings
    ]
    fields = [(name, pa.string()) for name in ("kind", "severity", "text", "mend")]
    return pa.Table.from_pylist(
        escape_all(rows), pa.schema([*fields, ("ids", pa.list_(pa.string())), ("likeness", pa.float64())])
    )


def _content_reader(source: Source, config: DataConfig) -> Callable[[str], bytes | None]:
    """A function that reads the bytes of an image by its id, or None if it is unreadable."""
    indices = {id_: n for n, id_ in enumerate(source.ids)}

    def read(id_: str) -> bytes | None:
        try:
            image = source.images[indices[id_]]
            if isinstance(image, np.ndarray):
                return encode_png(image)
            return read_image_bytes(image, config.max_bytes)
        except DecodeError:
            return None

    return read


def _file_finder(source: Source) -> Callable[[str], Path | None]:
    """A function that returns the file of an image by its id; None if it is not a local file of its own."""
    indices = {id_: n for n, id_ in enumerate(source.ids)}

    def find(id_: str) -> Path | None:
        image = source.images[indices[id_]]
        return image if isinstance(image, Path) else None

    return find


def _describe_counts(scan: ScanResult, splits_K: np.ndarray, seconds: float) -> str:
    source = scan.source
    splits = ", ".join(f"{(splits_K == s).sum():,} {name}" for s, name in enumerate(SPLITS))
    return (
        f"{source.name}: {len(source.labels_N):,} images of {len(source.class_names)} classes ({splits}), scanned in "
        f"{seconds:.1f} s"
    )


def _summarize(findings: list[Finding]) -> Any:
    """A table with one row per kind of finding."""
    if not findings:
        return "no problems found"
    table = Table(box=None, pad_edge=False)
    table.add_column("found", justify="right")
    for name in ("what", "severity", "for example"):
        table.add_column(name, overflow="fold")
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind, of_kind in by_kind.items():
        table.add_row(f"{len(of_kind):,}", audit_page.title_of(kind), KINDS[kind][0], of_kind[0].text)
    return table


def write_manifest(
    scan: ScanResult, config: DataConfig, splits_K: np.ndarray, findings: list[Finding], path: Path, log: RunLog
) -> str | None:
    """Write a manifest of the clean images, if there are any; the command that trains on it.

    DataError if the file exists. It lists image files by path, and images inside other files by the ids that data.only
    accepts.
    """
    if path.exists():
        raise DataError(f"{path} already exists: choose another --write-manifest, or move it away")
    source, rows = scan.source, select_clean(scan, splits_K, findings)
    label_sets_MK = source.encode_label_sets()
    files = source.images
    if not rows:
        log.info(f"{path} was not written, as no image is left for it")
        return None
    have_paths = not isinstance(files, np.ndarray) and all(isinstance(file, Path) for file in files)
    folder, outside = path.resolve().parent, False
    # Images in files of their own are listed with their groups; others keep those of the data set.
    groups = source.groups if have_paths else None
    group = _choose_group_column(config) if groups is not None else None
    columns = {name: cells for name, cells in source.columns.items() if have_paths and name != group}
    stream = io.StringIO()
    # Every value is quoted: the csv module leaves a carriage return bare.
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    names = ("path" if have_paths else "id", "label", "split", *([group] if group else []))
    writer.writerow([*names, *map(escape_surrogates, columns)])
    for n, s in rows:
        name = source.ids[n]
        if have_paths:
            file = Path(str(files[n])).resolve()
            inside = file.is_relative_to(folder)
            outside |= not inside
            name = str(file.relative_to(folder) if inside else file)
        labels = list_classes(int(source.labels_N[n]), source.class_names, label_sets_MK)
        label = labels[0] if source.label_sets is None else json.dumps(labels, ensure_ascii=False)
        row = (name, label, SPLITS[s], *([] if groups is None else [groups[n]]))
        writer.writerow([*map(escape_surrogates, row), *(cells[n] for cells in columns.values())])
    write_atomically(path, stream.getvalue())
    listed = {n for n, _ in rows}
    omitted = [id_ for n, id_ in enumerate(source.ids) if n not in listed]
    omission = f", without {len(omitted):,} ({list_few(omitted)})" if omitted else ""
    log.info(f"{path} lists {len(rows):,} images{omission}")
    task = "multilabel" if source.label_sets is not None else config.task
    further = ["--data.task", task] if task != "auto" else []
    further += ["--data.columns", *config.columns] if config.columns else []
    if not have_paths:
        of_groups = ["--data.group", config.group] if config.group else []
        return command_line("train", config.path, "--data.only", path, *of_groups, *further)
    of_groups = ["--data.group", group] if group else []
    return command_line("train", path, *(["--data.outside", "true"] if outside else []), *of_groups, *further)


def _choose_group_column(config: DataConfig) -> str:
    """Return the column for the images' groups: data.group, unless that is a regular expression."""
    group = config.group or ""
    return group if re.fullmatch(r"\w+", group) and group not in ("path", "label", "split") else "group"
