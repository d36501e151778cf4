"""The audit finds every planted fault and nothing else, and training copes with all of them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.audit import checks
from classifier.data.audit.scan import scan_images
from classifier.data.readers.source import Source
from classifier.errors import DataError
from tests.data import faults
from tests.data.readers.test_archive import pack_tar, pack_zip


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return faults.files()


def as_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "set"


def as_manifest(folder: Path, files: dict[str, bytes]) -> Path:
    as_folder(folder, files)
    lines = ["path,label", *(f"set/{name},{name.split('/')[0]}" for name in files)]
    (folder / "set.csv").write_text("\n".join(lines))
    return folder / "set.csv"


def as_list(folder: Path, files: dict[str, bytes]) -> Path:
    as_folder(folder, files)
    (folder / "set.txt").write_text("\n".join(f"set/{name} {name.split('/')[0]}" for name in files))
    return folder / "set.txt"


def as_parquet(folder: Path, files: dict[str, bytes]) -> Path:
    images = pa.array(
        [{"bytes": content, "path": name} for name, content in files.items()],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({"image": images, "label": [name.split("/")[0] for name in files]}), folder / "set.parquet")
    return folder / "set.parquet"


def as_shards(folder: Path, files: dict[str, bytes]) -> Path:
    members = {}
    for name, content in files.items():
        label, _, file = name.partition("/")
        members[f"{label}-{file}"] = content
        members[f"{label}-{file.rpartition('.')[0]}.cls"] = label.encode()
    return pack_tar(folder / "set.tar", members)


FORMATS = {
    "folder": as_folder,
    "zip": lambda folder, files: pack_zip(folder / "set.zip", files),
    "tar": lambda folder, files: pack_tar(folder / "set.tar", files),
    "manifest": as_manifest,
    "list": as_list,
    "parquet": as_parquet,
    "shards": as_shards,
}


def ids_by_name(source: Source, files: dict[str, bytes]) -> dict[str, str]:
    """Return each file's id in this source, matched by content, since order and names differ."""
    assert not isinstance(source.images, np.ndarray)
    by_content: dict[bytes, list[str]] = {}
    for id_, file in zip(source.ids, source.images, strict=True):
        by_content.setdefault(file.read_bytes(), []).append(id_)
    return {name: next(id_ for id_ in by_content[content]) for name, content in files.items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_planted_fault_is_found_in_every_format(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    config = DataConfig(path=str(FORMATS[kind](tmp_path, files)), cache=None, **faults.SETTINGS)
    source = data.open_source(config)
    scan = scan_images(source, config)
    found = checks.run_checks(scan, checks.draw_splits_for(scan, config)[0], config.size or 0)
    ids = ids_by_name(source, files)
    of_image: dict[str, set[str]] = {}
    for finding in found:
        for id_ in finding.ids:
            of_image.setdefault(id_, set()).add(finding.kind)
    has_file_names = kind in ("folder", "zip", "tar", "manifest", "list")
    for name, (ending, _, wanted) in faults.FAULTS.items():
        file = next(path for path in files if path.endswith(f"/{name}.{ending}"))
        kinds = of_image.get(ids[file], set())
        if wanted == "near":
            assert kinds & {"near_duplicate", "near_leak", "near_conflict"}, name
        elif wanted == "duplicate":
            assert kinds & {"duplicate", "leak"}, name
        elif wanted != "extension" or has_file_names:
            assert wanted in kinds, name
    assert "label_conflict" in of_image[ids["dog/conflict.png"]]
    faultless = {ids[f"{'cat' if n % 2 == 0 else 'dog'}/{n:04d}.png"] for n in range(7, faults.GOOD)}
    false_findings = {id_: of_image[id_] for id_ in faultless & of_image.keys()}
    assert not false_findings


@pytest.mark.parametrize("kind", FORMATS)
def test_training_copes_with_every_planted_fault(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    for cache in (None, str(tmp_path / "cache")):
        config = DataConfig(path=str(FORMATS[kind](tmp_path, files)), cache=cache, **faults.SETTINGS)
        dataset = data.load(config)
        unreadable = sum(wanted == "unreadable" for _, _, wanted in faults.FAULTS.values())
        assert sum(dataset.counts.values()) == len(files) - unreadable
        assert dataset.split_record["unreadable_count"] == unreadable


def test_leaks_across_given_splits(tmp_path: Path) -> None:
    for split, numbers in (("train", range(40)), ("test", range(40, 60))):
        for n in numbers:
            path = tmp_path / split / ("cat" if n % 2 == 0 else "dog") / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(faults.encoded(faults.scene(n)))
    (tmp_path / "test" / "cat" / "leak.png").write_bytes(faults.encoded(faults.scene(2)))
    (tmp_path / "test" / "dog" / "near.png").write_bytes(faults.encoded(faults.darker(faults.scene(3), 1.2)))
    config = DataConfig(path=str(tmp_path), cache=None, validation=0.0)
    scan = scan_images(data.open_source(config), config)
    splits_K, _ = checks.draw_splits_for(scan, config)
    found = checks.run_checks(scan, splits_K, 48)
    by_kind = {finding.kind: finding for finding in found}
    assert set(by_kind) == {"leak", "near_leak"}
    assert set(by_kind["leak"].ids) == {"train/cat/2.png", "test/cat/leak.png"}
    assert set(by_kind["near_leak"].ids) == {"train/dog/3.png", "test/dog/near.png"}
    source = scan.source
    clean = {source.ids[n]: split for n, split in checks.select_clean(scan, splits_K, found)}
    assert "train/cat/2.png" not in clean
    assert clean["test/cat/leak.png"] == 2
    assert clean["train/dog/3.png"] == clean["test/dog/near.png"] == 2
    assert clean["train/dog/5.png"] == 0


def test_groups_few_images_and_imbalance(tmp_path: Path) -> None:
    lines = ["path,label,split,patient"]
    for n in range(150):
        path = tmp_path / f"{n}.png"
        path.write_bytes(faults.encoded(faults.scene(n, 24)))
        label = "rare" if n < 9 else "common"
        lines.append(f"{n}.png,{label},{'test' if n % 5 == 0 else 'train'},p{n // 3}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    config = DataConfig(path=str(tmp_path / "set.csv"), cache=None, validation=0.0, group="patient")
    scan = scan_images(data.open_source(config), config)
    found = checks.run_checks(scan, checks.draw_splits_for(scan, config)[0], 16)
    kinds = {finding.kind for finding in found}
    assert kinds == {"group_leak", "few", "imbalance"}
    assert any("'rare' has 7 training images" in finding.text for finding in found)


def test_what_is_typical_of_all_images_is_not_reported(tmp_path: Path) -> None:
    for n in range(40):
        path = tmp_path / ("cat" if n % 2 == 0 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(faults.encoded(faults.darker(faults.scene(n).resize((400, 96)), 0.2)))
    config = DataConfig(path=str(tmp_path), cache=None)
    scan = scan_images(data.open_source(config), config)
    assert checks.run_checks(scan, checks.draw_splits_for(scan, config)[0], 48) == []


def test_audit_command(verb, tmp_path: Path) -> None:
    folder = faults.write_folder(tmp_path / "set")
    settings = [word for name, value in faults.SETTINGS.items() for word in (f"--data.{name}", str(value))]
    done = verb("audit", folder, "--write-manifest", tmp_path / "clean.csv", *settings)
    assert done.code == 0, done.err
    for word in ("unreadable", "Duplicates", "Conflicting labels", "Near duplicates"):
        assert word.lower() in done.out.lower()
    page = (done.folder / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 20
    assert "http" not in page.replace("http-equiv", "")
    table = pq.read_table(done.folder / "findings.parquet").to_pylist()
    assert done.result["findings"]["blank"] == sum(row["kind"] == "blank" for row in table) == 3
    again = verb("audit", tmp_path / "clean.csv", "--name", "again", *settings)
    assert again.code == 0, again.err
    assert not {"unreadable", "leak", "near_leak", "duplicate", "label_conflict"} & again.result["findings"].keys()
    done = verb("audit", folder, "--write-manifest", tmp_path / "clean.csv", *settings)
    assert done.code == 2
    assert "clean.csv already exists" in done.err
    trained = verb("train", "--data.path", tmp_path / "clean.csv", "--train.epochs", "1", *settings)
    assert trained.code == 0, trained.err


@pytest.mark.parametrize("format", ["zip", "parquet"])
def test_audit_command_selects_clean_images_in_archives_and_tables(format: str, verb, tmp_path: Path, files) -> None:
    path, clean = FORMATS[format](tmp_path, files), tmp_path / "clean.csv"
    settings = [word for name, value in faults.SETTINGS.items() for word in (f"--data.{name}", str(value))]
    done = verb("audit", path, "--write-manifest", clean, *settings)
    assert done.code == 0, done.err
    assert f"{path} --data.only {clean}" in (done.folder / "audit.html").read_text()
    config = DataConfig(path=str(path), only=str(clean), cache=None, **faults.SETTINGS)
    scan = scan_images(data.open_source(config), config)
    found = {finding.kind for finding in checks.run_checks(scan, checks.draw_splits_for(scan, config)[0], 48)}
    assert not {"unreadable", "leak", "near_leak", "duplicate", "label_conflict"} & found
    assert "images are used (data.only)" in " ".join(data.load(config).findings)


def audit(path: Path, **settings: Any) -> tuple[list[str], set[str], int]:
    """Return what training refuses, the other kinds of findings, and the number of test images."""
    config = DataConfig(path=str(path), cache=None, **settings)
    scan = scan_images(data.open_source(config), config)
    splits_K, refusals = checks.draw_splits_for(scan, config)
    found = checks.run_checks(scan, splits_K, 24)
    with pytest.raises(DataError):
        data.load(config)
    return [finding.text for finding in refusals], {finding.kind for finding in found}, int((splits_K == 2).sum())


def test_an_audit_tells_what_training_refuses(tmp_path: Path) -> None:
    """Of a class of one image, one of copies and one that is unreadable, the last; the others are audited as ever."""
    for n in range(60):
        write(tmp_path / ("cat" if n % 2 else "dog") / f"{n}.png", faults.encoded(faults.scene(n, 24)))
    write(tmp_path / "cat" / "copy.png", faults.encoded(faults.scene(1, 24)))
    assert checks.draw_splits_for(*_scanned(tmp_path))[1] == []
    write(tmp_path / "lone" / "a.png", faults.encoded(faults.scene(100, 24)))
    for name in "abc":
        write(tmp_path / "copies" / f"{name}.png", faults.encoded(faults.scene(101, 24)))
        write(tmp_path / "broken" / f"{name}.jpg", b"no image")
    reasons, kinds, tested = audit(tmp_path)
    assert reasons == [
        "4.4% of the images are unreadable, more than data.max_corrupt 1.0%",
        "a class has no usable image: 'broken'",
    ]
    assert {"unreadable", "duplicate"} <= kinds
    assert tested > 0


def test_audits_of_poor_sets(tmp_path: Path) -> None:
    for n in range(6):
        write(tmp_path / "one" / "cat" / f"{n}.png", faults.encoded(faults.scene(n, 24)))
    assert audit(tmp_path / "one")[0] == ["there is one class only, 'cat': a classifier needs at least two"]
    for name in ("cat", "dog"):
        write(tmp_path / "pair" / name / "a.png", faults.encoded(faults.scene(0, 24)))
    reasons, _, tested = audit(tmp_path / "pair")
    assert reasons == ["pair: the class 'cat' has only one image: add more, or remove it"]
    assert tested == 0
    config = DataConfig(path=str(tmp_path / "one"), validation=0.6, test=0.6)
    assert "leave no images to train on" in checks.draw_splits_for(*_scanned(tmp_path / "one", config))[1][1].text


def test_an_audit_reads_what_training_does_not(verb, tmp_path: Path) -> None:
    for n in range(24):
        write(tmp_path / "set" / ("cat" if n % 2 else "dog") / f"{n}.png", faults.encoded(faults.scene(n, 24)))
    write(tmp_path / "set" / "Cat" / "a.png", faults.encoded(faults.scene(100, 24)))
    (tmp_path / "set" / "owl").mkdir()
    with pytest.raises(DataError, match="the class folder 'owl' has no images") as caught:
        data.open_source(DataConfig(path=str(tmp_path / "set")))
    assert caught.value.__reduce__() == (DataError, (str(caught.value),))  # between the processes of a training
    done = verb("audit", tmp_path / "set")
    assert done.code == 0, done.err
    assert done.result["findings"]["refused"] == 2
    rows = pq.read_table(done.folder / "findings.parquet").to_pylist()
    assert "differ only by case" in " ".join(row["text"] for row in rows if row["kind"] == "refused")


def _scanned(path: Path, config: DataConfig | None = None):
    config = config or DataConfig(path=str(path))
    return scan_images(data.open_source(config), config), config


def test_no_usable_image(verb, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "a.png").write_bytes(b"no image")
    done = verb("audit", tmp_path / "set", "--write-manifest", tmp_path / "clean.csv")
    assert done.code == 0, done.err
    assert done.result["findings"] == {"refused": 2, "unreadable": 2, "few": 2}
    assert "100.0% of the images are unreadable" in " ".join(done.out.split())
    assert not (tmp_path / "clean.csv").exists()
    with pytest.raises(DataError):
        data.load(DataConfig(path=str(tmp_path / "set"), cache=None))


def test_wrong_labels_are_found(verb, tmp_path: Path) -> None:
    """Relabel 20 digits: a model trained on the data set finds most of them, and hardly any others."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    rng = np.random.default_rng(0)
    wrong = set(rng.choice(len(digits.target), 20, replace=False).tolist())
    for n, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        assigned = int(label + rng.integers(1, 10)) % 10 if n in wrong else int(label)
        path = tmp_path / "set" / str(assigned) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        faults.Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    trained = verb("train", "--data.path", tmp_path / "set", "--train.epochs", "8", "--name", "model")
    assert trained.code == 0, trained.err
    done = verb("audit", tmp_path / "set", "--model", "runs/model")
    assert done.code == 0, done.err
    rows = pq.read_table(done.folder / "findings.parquet").to_pylist()
    named = [int(row["ids"][0].split("/")[1].removesuffix(".png")) for row in rows if row["kind"] == "label_error"]
    assert len(wrong & set(named)) >= max(11, 0.9 * len(named))  # 11 to 18, depending on the seed
    assert json.loads((done.folder / "result.json").read_text())["findings"]["label_error"] == len(named)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_an_audit_of_several_labels(verb, tmp_path: Path) -> None:
    """A copy with other labels, a rare label, and the cleaned manifest, which keeps empty lists."""
    lists = [["cat"], ["cat", "big dog"], [], ["big dog", "owl; small"]]
    rows = [("path", "labels"), ("copy.png", '["cat"]')]
    for n in range(60):
        write(tmp_path / f"{n}.png", faults.encoded(faults.scene(n, 24)))
        rows.append((f"{n}.png", json.dumps(lists[n % 4] + ["rare"] * (n < 6))))
    write(tmp_path / "copy.png", faults.encoded(faults.scene(1, 24)))
    with (tmp_path / "set.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    done = verb("audit", tmp_path / "set.csv", "--write-manifest", tmp_path / "clean.csv")
    assert done.code == 0, done.err
    assert {"label_conflict", "few"} <= done.result["findings"].keys()
    rows = pq.read_table(done.folder / "findings.parquet").to_pylist()
    text = next(row["text"] for row in rows if row["kind"] == "label_conflict")
    assert text.startswith("the same image has other labels in each copy: copy.png (cat, ")
    assert "1.png (big dog + cat + rare, " in text
    assert any("'rare' has" in row["text"] for row in rows if row["kind"] == "few")
    source = data.open_source(DataConfig(path=str(tmp_path / "clean.csv")))
    assert source.label_sets is not None
    assert source.class_names == ("big dog", "cat", "owl; small", "rare")
    labels = {id_: source.label_sets[m] for id_, m in zip(source.ids, source.labels_N, strict=True)}
    assert not {"1.png", "copy.png"} & labels.keys()
    assert {len(labels[f"{n}.png"]) for n in range(10, 60, 4)} == {0}
    shown = verb("show", tmp_path / "clean.csv", "--images", "5", "--views", "1")
    assert shown.code == 0, shown.err
    assert (shown.folder / "grid.png").exists()


@pytest.mark.slow
def test_leak_inflates_the_score(verb, tmp_path: Path) -> None:
    """Labels are coin tosses, which cannot be learned; half of the test images are copies of training images."""
    rng = np.random.default_rng(0)
    labels = [("heads", "tails")[n] for n in rng.integers(0, 2, 300)]
    for n, label in enumerate(labels):
        split = "train" if n < 220 else "test"
        write(tmp_path / "set" / split / label / f"{n}.png", faults.encoded(faults.scene(n, 48)))
        if n < 80:
            copy = faults.encoded(faults.darker(faults.scene(n, 48), 1.2), "jpeg", quality=85)
            write(tmp_path / "set" / "test" / label / f"copy-{n}.jpg", copy)
    audited = verb("audit", tmp_path / "set", "--write-manifest", tmp_path / "clean.csv")
    assert audited.code == 0, audited.err
    assert audited.result["findings"]["near_leak"] == 80
    accuracy = {}
    settings = ("--data.size", "32", "--data.batch", "32", "--augment.policy", "none", "--train.keep", "last")
    for name, path in (("leaky", "set"), ("audited", "clean.csv")):
        done = verb("train", "--data.path", tmp_path / path, "--train.epochs", "25", "--name", name, *settings)
        assert done.code == 0, done.err
        done = verb("evaluate", f"runs/{name}")
        assert done.code == 0, done.err
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        accuracy[name] = result["test"]["accuracy"]
    print(f"test accuracy: with leaks {accuracy['leaky']:.1%}, audited {accuracy['audited']:.1%}")
    assert accuracy["leaky"] > accuracy["audited"] + 0.1
    assert abs(accuracy["audited"] - 0.5) < 0.15
