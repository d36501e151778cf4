"""What an audit writes, training reads."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.audit.scan import ScanResult
from classifier.data.readers.source import Source
from classifier.data.split_names import SPLITS
from classifier.errors import DataError
from jobs.steps.audit import write_manifest
from tests.data.readers.test_archive import pack_zip

ODD_NAMES = (
    *("AC|DC", "cat; wild", "cat; tame", "[none]", "['a', 'b']", "0 1", "1,0", "com,ma", 'quo"te', "'", "sep=;"),
    *("line\nbreak", "re\rturn", "tab\tbed", " lead", "trail ", "back\\slash", "b\udce9ta", "\\udce9", "caf\u00e9"),
    *("nan", "None", "null", "-1", "01", "1e3", "=1+1", "path", "label", "{x}", "file:", "~", "\u732b", "\U0001f408"),
)
TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def all_images(source: Source) -> ScanResult:
    """A scan of a source without any fault."""
    count = len(source.labels_N)
    values: dict[str, Any] = {field.name: np.zeros(0) for field in dataclasses.fields(ScanResult)}
    values |= {"source": source, "flaws": {}, "digests_N": np.zeros(count, "V16"), "usable_N": np.arange(count)}
    values["hashes_K"] = values["digests_N"]
    return ScanResult(**values)


def write_and_read(source: Source, config: DataConfig, manifest: Path, **settings: Any) -> Source:
    """Write the manifest of a source, its images in all three splits, and open it as the audit's command would."""
    manifest.unlink(missing_ok=True)
    splits_K = np.arange(len(source.labels_N)) % 3
    log: Any = SimpleNamespace(info=lambda _: None)
    command = write_manifest(all_images(source), config, splits_K, [], manifest, log)
    assert command is not None
    if "--data.only" in command:
        return data.open_source(DataConfig(path=config.path, only=str(manifest), **settings))
    return data.open_source(DataConfig(path=str(manifest), **settings))


def classes(source: Source) -> dict[str, list[str]]:
    names = [source.class_names[k] for k in source.labels_N]
    splits = [SPLITS[s] for s in source.splits_N]
    return {id_: row for id_, *row in zip(source.ids, names, splits, strict=True)}


@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ODD_NAMES) | TEXT, min_size=2, max_size=5, unique=True))
def test_what_is_written_is_read(packed: bool, tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "set"
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        if name.startswith(".") or (packed and any("\ud800" <= c <= "\udfff" for c in name)):
            return
        for n in range(3):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{n}.png").write_bytes(b"")
    path = folder
    if packed:
        files = {p.relative_to(folder).as_posix(): b"" for p in folder.rglob("*.png")}
        path = pack_zip(tmp_path / "set.zip", files)
    config = DataConfig(path=str(path))
    try:
        source = data.open_source(config)
    except DataError:  # names that differ only by case, and the like
        return
    again = write_and_read(source, config, tmp_path / "clean.csv")
    assert again.class_names == source.class_names
    expected = {id_: [name, SPLITS[n % 3]] for n, (id_, (name, _)) in enumerate(classes(source).items())}
    prefix = "" if packed else "set/"
    assert classes(again) == {prefix + id_: row for id_, row in expected.items()}


@pytest.mark.parametrize("group", ["patient", r"(p\d+)_\d+\.png"])
def test_groups_are_written_too(group: str, tmp_path: Path) -> None:
    lines = ["path,label,patient"]
    for n in range(6):
        path = tmp_path / "set" / ("cat", "dog")[n % 2] / f"p{n // 3}_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        lines.append(f"{path},{path.parent.name},p{n // 3}")
    is_column = group == "patient"
    (tmp_path / "set.csv").write_text("\n".join(lines))
    config = DataConfig(path=str(tmp_path / ("set.csv" if is_column else "set")), group=group)
    again = write_and_read(
        data.open_source(config), config, tmp_path / "clean.csv", group="patient" if is_column else "group"
    )
    assert again.groups is not None
    prefix = "" if is_column else "group "
    by_id = dict(zip(again.ids, again.groups, strict=True))
    assert by_id == {id_: f"{prefix}{Path(id_).name[:2]}" for id_ in again.ids}


@pytest.mark.parametrize("columns", [("all",), ("weight:category", "notes"), ("weight", "patient")])
def test_columns_are_written_too(columns: tuple[str, ...], tmp_path: Path) -> None:
    lines = ["path,label,weight,patient,notes"]
    for n in range(6):
        path = tmp_path / "set" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        lines.append(f'set/{n}.png,{"ab"[n % 2]},{n},p{n // 3},"back\\slash ""{n}"", ä"')
    (tmp_path / "set.csv").write_text("\n".join(lines))
    config = DataConfig(path=str(tmp_path / "set.csv"), group="patient", columns=columns)
    source = data.open_source(config)
    again = write_and_read(source, config, tmp_path / "clean.csv", group="patient", columns=columns)
    assert again.columns == source.columns
    assert set(again.columns) == {"weight", "patient" if "patient" in columns else "notes"}
    assert again.groups == source.groups
