"""An audit as a verb: looked at with a progress bar, told by kind, and written as page, table and manifest."""

import csv
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data import decode_all
from classifier.data.audit import checks as auditing
from classifier.data.audit.finding import KINDS, Finding
from classifier.data.audit.scan import ScanResult, scan_images
from classifier.data.decoding.decode import DecodeError
from classifier.data.infer_shape import infer_shape
from classifier.data.readers.file_bytes import read_image_bytes
from classifier.data.split_names import SPLITS
from classifier.errors import DataError, list_few
from classifier.report import audit_page
from classifier.runs.folder import Run
from classifier.storage.atomic import write_atomically
from jobs.cli.console import RunLog

FINDINGS = "findings.parquet"


def run_audit(experiment: Experiment, options: Any, run: Run, journal: RunLog) -> None:
    """Look, tell, write."""
    began = time.perf_counter()
    config = experiment.data
    source = data.open_source(config)
    with journal.progress_bar(f"looking at {source.name}", len(source.labels_N)) as tick:
        looked = scan_images(source, config, tick)
    if not len(looked.usable_N):
        raise DataError(f"{source.name}: none of its {len(source.labels_N):,} pictures can be used")
    splits_K = auditing.draw_splits_for(looked, config)
    size, _ = infer_shape(source, config)
    if options.model:
        from classifier.evaluation import label_errors

        features_KF = label_errors.seen(looked, Path(options.model), experiment)
        found = auditing.run_checks(looked, splits_K, size, features_KF) + label_errors.find(looked, features_KF)
    else:
        found = auditing.run_checks(looked, splits_K, size)
    seconds = time.perf_counter() - began
    counts = _counts(looked, splits_K, seconds)
    journal.info(counts)
    for thing in _told(found):
        journal.info(thing)
    mend = None
    if options.write_manifest:
        mend = _write_manifest(looked, config, splits_K, found, Path(options.write_manifest), journal)
    places = {id_: n for n, id_ in enumerate(source.ids)}

    def content(id_: str) -> bytes | None:
        try:
            picture = source.images[places[id_]]
            if isinstance(picture, np.ndarray):
                return decode_all.encode_png(picture)
            return read_image_bytes(picture, config.max_bytes)
        except DecodeError:
            return None

    page = audit_page.write(
        run.folder / audit_page.NAME, name=source.name, counts=counts, findings=found, content=content, fix_command=mend
    )
    pq.write_table(table_of(found), run.folder / FINDINGS)
    by_kind = Counter(finding.kind for finding in found)
    run.write_result("audit", "finished", config=experiment.as_dict(), findings=dict(by_kind), audit_seconds=seconds)
    journal.info(f"page {page}")


def table_of(found: list[Finding]) -> pa.Table:
    """kind, severity, text, mend, ids, likeness: a row a finding."""
    rows = [
        {"kind": f.kind, "severity": f.severity, "text": f.text, "mend": f.fix, "ids": f.ids, "likeness": f.score}
        for f in found
    ]
    fields = [(name, pa.string()) for name in ("kind", "severity", "text", "mend")]
    return pa.Table.from_pylist(rows, pa.schema([*fields, ("ids", pa.list_(pa.string())), ("likeness", pa.float64())]))


def _counts(looked: ScanResult, splits_K: np.ndarray, seconds: float) -> str:
    source = looked.source
    parts = ", ".join(f"{(splits_K == s).sum():,} {name}" for s, name in enumerate(SPLITS))
    return (
        f"{source.name}: {len(source.labels_N):,} pictures of {len(source.class_names)} classes ({parts}), looked at "
        f"in {seconds:.1f} s"
    )


def _told(found: list[Finding]) -> list[Any]:
    """A line a kind."""
    if not found:
        return ["nothing is wrong with it"]
    table = Table(box=None, pad_edge=False)
    table.add_column("found", justify="right")
    for name in ("what", "how bad", "for example"):
        table.add_column(name, overflow="fold")
    by_kind: dict[str, list[Finding]] = {}
    for finding in found:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind, of_kind in by_kind.items():
        table.add_row(f"{len(of_kind):,}", audit_page.title_of(kind), KINDS[kind][0], of_kind[0].text)
    return [table]


def _write_manifest(
    looked: ScanResult, config: DataConfig, splits_K: np.ndarray, found: list[Finding], path: Path, journal: RunLog
) -> str | None:
    """A manifest of what is good, and how to train on it. DataError if it is there already.

    Files have their paths in it; pictures inside of other files, the ids that data.only knows them by.
    """
    if path.exists():
        raise DataError(f"{path} is there already: give another --write-manifest, or move it away")
    source, rows = looked.source, auditing.select_clean(looked, splits_K, found)
    files = source.images
    have_paths = not isinstance(files, np.ndarray) and all(isinstance(file, Path) for file in files)
    home, outside = path.resolve().parent, False
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path" if have_paths else "id", "label", "split"))
    for n, s in rows:
        name = source.ids[n]
        if have_paths:
            file = Path(str(files[n])).resolve()
            inside = file.is_relative_to(home)
            outside |= not inside
            name = str(file.relative_to(home) if inside else file)
        writer.writerow((name, source.class_names[source.labels_N[n]], SPLITS[s]))
    write_atomically(path, stream.getvalue())
    kept = {n for n, _ in rows}
    left = [id_ for n, id_ in enumerate(source.ids) if n not in kept]
    journal.info(
        f"{path} lists {len(rows):,} pictures; left out: {len(left):,} ({list_few(left)})" if left else f"{path}"
    )
    if not have_paths:
        return f"python jobs/train.py --data.path {config.path} --data.only {path}"
    return f"python jobs/train.py --data.path {path}{' --data.outside true' if outside else ''}"
