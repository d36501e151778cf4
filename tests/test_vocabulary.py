"""One word for one thing: names and phrases that classifier/README.md replaces do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for top in ("classifier", "jobs", "tests") for path in (ROOT / top).rglob("*.py"))
NAMES = {
    *("looked", "glance", "place", "places", "sides", "heap", "figures", "verdict", "told", "taken", "heard"),
    *("mend", "mended", "loan", "calm", "voice", "belief", "journal", "picture", "pictures", "novelty", "lookalikes"),
}
PHRASES = re.compile(
    r"a step of the averaged weights|over all workers together|taken at their word|no longer held to it|"
    r"stands in the run's|a frozen backbone sees|and accuracy .{1,12} apart|all about it:|after any death|\bthaw",
    re.IGNORECASE,
)


def defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_names_are_those_of_the_vocabulary():
    found = []
    for path in FILES:
        for name in (path.stem, *defined_names(ast.parse(path.read_text()))):
            if NAMES & set(name.lower().split("_")) and not name.startswith("test_"):
                found.append(f"{path}: {name}")
    assert not found


def test_old_phrases_are_gone():
    files = [*FILES, ROOT / "README.md", *ROOT.glob("*/README.md"), *(ROOT / "cluster").rglob("*.yaml")]
    found = [
        f"{path}: {match[0]}"
        for path in files
        if path != Path(__file__)
        for match in PHRASES.finditer(path.read_text())
    ]
    assert not found
