"""The command `classifier`, its help pages, and the packages that it is installed from."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobs.cli import entry_point
from jobs.cli.parser import format_help
from jobs.cli.verbs import SUMMARIES, VERB_GROUPS

ROOT = Path(__file__).resolve().parents[3]
VERBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")


@pytest.fixture(autouse=True)
def restore_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # or `main` would set it for later tests, too


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        entry_point.main(words)
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_every_verb_is_in_a_group(capsys):
    assert sorted(SUMMARIES) == VERBS
    code, out, _ = run(capsys, "--help")
    assert code == 0
    positions = [out.index(f"\n  {name} ") for verbs in VERB_GROUPS.values() for name in verbs]
    assert positions == sorted(positions)
    assert run(capsys)[1] == out
    assert max(map(len, out.splitlines())) <= 80


def test_unknown_verb(capsys):
    code, _, err = run(capsys, "trian", "photos/")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean train?" in err


def test_version(capsys):
    from classifier.version import __version__

    assert run(capsys, "--version") == (0, f"classifier {__version__}\n", "")


def test_a_verb_runs_as_its_script_does(verb, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "runs", "--out", "nothing")
    script = verb("runs", "--out", "nothing")
    assert (code, out, err) == (script.code, script.out, script.err)


@pytest.mark.parametrize("name", VERBS)
def test_help_fits_into_80_columns_and_breaks_no_word(name):
    verb = __import__(f"jobs.{name}", fromlist=["VERB"]).VERB
    short, full = format_help(verb), format_help(verb, show_all=True)
    assert max(map(len, f"{short}\n{full}".splitlines())) <= 80
    assert all(f"--{flag}" in full for flag in verb.flags)
    assert all(f"--{flag}" in short for flag in (*verb.own_flags, *verb.common))
    assert all(name.upper() in short for name in verb.positionals)
    assert set(verb.common) <= set(verb.setting_flags)
    assert len(short.splitlines()) <= 66


def test_the_installed_packages_are_those_of_the_folders():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent.relative_to(ROOT) for top in ("classifier", "jobs") for path in (ROOT / top).rglob("__init__.py")
    }
    names = {".".join(folder.parts).replace("jobs", "classifier_jobs", 1) for folder in folders}
    assert set(settings["packages"]) == names | {"classifier.report.templates", "classifier_jobs.cluster"}
    assert settings["package-dir"]["classifier_jobs"] == "jobs"


def test_the_command_is_installed_and_fast_to_import():
    """The script in the environment's bin/ loads no settings, no torch and no Ray for its help."""
    code = "import sys; from classifier_jobs.cli import entry_point; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert not {"torch", "ray", "numpy", "argparse", "dataclasses", "classifier"} & set(done.stdout.split())
    assert (Path(sys.executable).parent / "classifier").is_file()
