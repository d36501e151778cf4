"""What a person reads: text as it is."""

import subprocess
import sys

from rich.table import Table

from jobs.cli.console import RunLog


def test_a_folders_name_is_text_and_never_markup(tmp_path, capsys):
    name, table = "photos [old] [/b] :cat:", Table("name")
    table.add_row(name)
    with RunLog(tmp_path / "run.log") as journal:
        journal.info(name)
        journal.info(table)
    for said in (capsys.readouterr().out, (tmp_path / "run.log").read_text()):
        assert said.count(name) == 2


def test_listing_runs_needs_no_torch():
    code = "import sys, jobs.cli.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lines_printed_before_there_is_a_run_folder_are_in_its_log(tmp_path):
    with RunLog() as log:
        log.info("before")
        log.attach(tmp_path / "run.log")
        log.info("after")
    assert (tmp_path / "run.log").read_text() == "before\nafter\n"
