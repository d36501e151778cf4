"""`import classifier`: what it exports, in any order of imports."""

import pkgutil
import random
import subprocess
import sys
from pathlib import Path

import pytest

import classifier

ROOT = Path(__file__).resolve().parents[2]
SUBMODULES = [m.name for m in pkgutil.walk_packages(classifier.__path__, "classifier.")]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dir_lists_what_is_exported():
    assert dir(classifier) == sorted([*classifier.__all__, "__version__"])
    assert classifier.__all__ == sorted(classifier.__all__, key=lambda name: (name[0].islower(), name))


def test_star_import_gives_every_name():
    code = "from classifier import *; import classifier; print(all(callable(globals()[n]) for n in classifier.__all__))"
    assert run_python(code) == "True\n"


@pytest.mark.parametrize("seed", range(3))
def test_every_name_is_callable_before_and_after_other_imports(seed):
    """A submodule that is imported becomes an attribute of its package: none may hide a public name."""
    names = [*classifier.__all__]
    modules = [*SUBMODULES]
    random.Random(seed).shuffle(names)
    random.Random(seed).shuffle(modules)
    code = f"""
import importlib
import classifier
names, modules = {names!r}, {modules!r}
half = len(names) // 2
before = {{name: getattr(classifier, name) for name in names[:half]}}
for module in modules:
    importlib.import_module(module)
assert all(callable(getattr(classifier, name)) for name in names)
assert all(getattr(classifier, name) is value for name, value in before.items())
print("ok")
"""
    assert run_python(code) == "ok\n"


def test_unknown_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = classifier.no_such_name  # pyright: ignore[reportAttributeAccessIssue]


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "classifier" / "py.typed").is_file()
