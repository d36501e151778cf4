"""Console output: text is printed as it is, and logged."""

import subprocess
import sys

from rich.table import Table

from jobs.cli.console import RunLog


def test_names_are_printed_as_text_and_never_as_markup(tmp_path, capsys):
    name, table = "photos [old] [/b] :cat:", Table("name")
    table.add_row(name)
    with RunLog(tmp_path / "run.log") as log:
        log.info(name)
        log.info(table)
    for text in (capsys.readouterr().out, (tmp_path / "run.log").read_text()):
        assert text.count(name) == 2


def test_listing_runs_needs_no_torch():
    code = "import sys, jobs.cli.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lines_before_the_run_folder_exists_are_in_its_log(tmp_path):
    with RunLog() as log:
        log.info("before")
        log.attach(tmp_path / "run.log")
        log.info("after")
    assert (tmp_path / "run.log").read_text() == "before\nafter\n"
