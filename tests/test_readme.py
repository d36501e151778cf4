"""The README's tree is the tree that is there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("classifier", "jobs", "tests/benchmarks")


def listed() -> set[str]:
    """Paths in the README's captioned tree: a line's indent says in which folder it lies."""
    block = re.search(r"```text\n(classifier/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README.md has no tree"
    found, folders = set(), []
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            found.add("/".join([*folders, name]))
    return found


def test_the_tree_lists_every_source_file_and_no_other():
    there = set()
    for folder in FOLDERS:
        there |= {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py"}
    assert listed() == there


def test_top_level_folders_are_the_agreed_ones():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {n.split("/")[0] for n in names if "/" in n} <= {"classifier", "jobs", "cluster", "tests", ".ci"}
