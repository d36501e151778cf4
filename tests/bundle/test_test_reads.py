"""How often the test split was read is written down before, and never forgotten."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from classifier.bundle import test_reads
from classifier.bundle.test_reads import FILE, copy_test_reads, count_test_reads, describe_test_reads, record_test_read
from classifier.errors import RunError


def make_run(folder: Path, **result: object) -> Path:
    (folder / "bundle").mkdir(parents=True)
    (folder / "experiment.yaml").touch()
    (folder / "bundle" / "bundle.json").write_text(json.dumps({"scores": {"test": None}}))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_run_and_bundle_count_the_same_and_a_copied_bundle_goes_on_counting(tmp_path):
    run = make_run(tmp_path / "run")
    assert count_test_reads(run) == 0
    assert [record_test_read(run, "evaluate"), record_test_read(run / "bundle", "robust")] == [1, 2]
    assert count_test_reads(run) == count_test_reads(run / "bundle") == 2
    copied = (run / "bundle").rename(tmp_path / "copied")
    assert record_test_read(copied, "evaluate") == 3
    assert count_test_reads(run) == 2


def test_a_bundle_that_a_kill_left_behind_catches_up_at_the_next_read(tmp_path):
    run = make_run(tmp_path / "run")
    record_test_read(run, "evaluate")
    (run / "bundle" / FILE).unlink()  # killed before the second folder
    record_test_read(run, "evaluate")
    assert count_test_reads((run / "bundle").rename(tmp_path / "copied")) == 2


def test_a_test_of_a_trial_counts_for_its_search(tmp_path):
    search = make_run(tmp_path / "search")
    trial = make_run(search / "trials" / "0a1b2c3d")
    record_test_read(search, "tune")
    assert record_test_read(trial / "bundle", "evaluate") == 2
    assert count_test_reads(search) == 2


@pytest.mark.parametrize(
    ("file", "document", "reads"),
    [
        ("result.json", {"test_reads": 3}, 3),
        ("result.earlier.json", {"test_reads": 2}, 2),
        ("bundle/bundle.json", {"scores": {"test": {"accuracy": 1}}}, 1),
        ("result.json", {"test_reads": "many"}, 0),
        ("result.json", ["no result"], 0),
        ("bundle/bundle.json", {"scores": 1}, 0),
    ],
)
def test_reads_of_earlier_versions_are_taken_over(tmp_path, file, document, reads):
    run = make_run(tmp_path / "run")
    (run / file).write_text(json.dumps(document))
    assert count_test_reads(run) == reads
    assert record_test_read(run, "evaluate") == reads + 1
    (run / file).unlink()
    assert count_test_reads(run) == reads + 1


def test_a_line_that_was_cut_short_counts(tmp_path):
    run = make_run(tmp_path / "run")
    (run / FILE).write_text('{"read": "2026')
    assert record_test_read(run, "evaluate") == 2


def test_a_record_that_is_no_file_is_not_taken_for_no_reads(tmp_path):
    """A pipe would be waited for, and an endless device fill the memory."""
    for n, make in enumerate((Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"))):
        run = make_run(tmp_path / f"run{n}")
        make(run / FILE)
        os.mkfifo(run / "result.earlier.json")
        for count in (count_test_reads, lambda run: record_test_read(run, "evaluate")):
            with pytest.raises(RunError, match="no ordinary file: restore it"):
                count(run)


def test_bundle_that_replaces_another_has_its_count(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    record_test_read(tmp_path / "old", "evaluate")
    copy_test_reads(tmp_path / "old", tmp_path / "new")
    assert count_test_reads(tmp_path / "new") == 1


def read_five_times(run: Path) -> None:
    for _ in range(5):
        record_test_read(run, "evaluate")


def test_reads_at_the_same_time_are_all_counted(tmp_path):
    run = make_run(tmp_path / "run", test_reads=2)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(read_five_times, [run] * 4)
    assert count_test_reads(run) == 22


def test_what_cannot_be_counted_is_not_read(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(test_reads, "_append", refuse)
    with pytest.raises(RunError, match="cannot be written"):
        record_test_read(run, "evaluate")


@pytest.mark.parametrize(
    ("reads", "words"), [(0, "has not been read"), (1, "read once."), (3, "read 3 times: test scores that influenced")]
)
def test_said_in_plain_words(reads, words):
    assert words in describe_test_reads(reads)
