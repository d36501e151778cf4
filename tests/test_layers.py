"""The walls: who may import whom, and what is loaded when."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Lower never imports higher. Names are files or folders of classifier/.
LAYERS = [
    ["errors", "heap", "pareto", "charts", "corruptions", "verdict"],
    ["setting", "files", "filesystem", "events", "power_law", "comparison", "calibration", "figures"],
    ["slices", "storage", "page"],
    ["config"],
    ["run", "muon", "tracking"],
    [
        "data",
        "augment",
        "models",
        "losses",
        "optim",
        "schedule",
        "metrics",
        "distributed",
        "checkpoint",
        "ema",
        "clock",
    ],
    ["resolve", "evaluate", "space", "scaling"],
    ["features"],
    ["frozen"],
    ["training", "novelty", "explain", "attacks"],
    ["fit", "cost", "probe", "mistakes", "robustness"],
    ["bundle", "plots", "search_page", "audit_page"],
    ["predict", "recorded", "holdout", "calibrated", "model_card", "report_scores"],
    ["recipes", "portfolio", "label_errors", "report_studies"],
    ["report"],
]
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth of its code, in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", sources("classifier"), ids=lambda p: str(p.relative_to(ROOT)))
def test_classifier_stays_inside_its_walls(path):
    assert not roots(path) & {"ray", "tyro", "rich", "argparse", "click", "jobs"}
    assert "environ" not in path.read_text()
    assert "getenv" not in path.read_text()


def test_one_file_imports_the_command_line_and_few_import_ray():
    users = {name: {p.name for p in sources("jobs") if name in roots(p)} for name in ("tyro", "ray")}
    searching = {"_place.py", "_search.py", "_trial.py", "_guide.py", "_schedulers.py", "_several.py"}
    assert users == {"tyro": {"_cli.py"}, "ray": {"_ray.py", "_workers.py", *searching}}


@pytest.mark.parametrize("path", sources("classifier"), ids=lambda p: str(p.relative_to(ROOT)))
def test_lower_layers_do_not_import_higher_ones(path):
    place = path.relative_to(ROOT / "classifier").parts[0].removesuffix(".py")
    if place == "__init__":
        return
    for name in imports(path):
        package, _, rest = name.partition(".")
        home = rest.partition(".")[0]
        if package == "classifier" and home in FLOOR and home != place:
            assert FLOOR[home] < FLOOR[place], f"{place} (floor {FLOOR[place]}) imports {home} (floor {FLOOR[home]})"


def test_every_file_has_a_floor():
    places = {p.relative_to(ROOT / "classifier").parts[0].removesuffix(".py") for p in sources("classifier")}
    assert places - {"__init__"} == set(FLOOR)


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split("\n")[-2].split())


def test_classifier_works_without_ray():
    code = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "tyro", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import classifier
for name in classifier.__all__:
    getattr(classifier, name)
import classifier.recorded
"""
    assert "ray" not in loaded_by(code)


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "sklearn", "ray", "matplotlib", "pyarrow", "PIL", "tyro"}
    assert not heavy & loaded_by(
        "import classifier, classifier.config.experiment, classifier.config.recipes, classifier.runs.folder"
    )


VERBS = [p.stem for p in sources("jobs") if not p.stem.startswith("_")]
WRONG = [("tune", "--search.minuts", "2"), ("tune", "--recipe", "digit"), ("train", "--experiment", "absent.yaml")]


@pytest.mark.parametrize("words", [*((verb, "--help") for verb in VERBS), *WRONG], ids=" ".join)
def test_help_and_mistakes_load_nothing_heavy(words):
    heavy = {"torch", "torchvision", "sklearn", "ray", "matplotlib", "pyarrow", "PIL"}
    verb, *rest = words
    code = f"""
import runpy
sys.argv = ["jobs/{verb}.py", *{rest!r}]
try:
    runpy.run_path("jobs/{verb}.py", run_name="__main__")
except SystemExit as end:
    assert end.code == {2 * (words in WRONG)}
"""
    assert not heavy & loaded_by(code)


def test_public_names_are_there():
    import classifier

    assert classifier.__all__ == sorted(classifier.__all__, key=lambda n: (n[0].islower(), n))
    assert all(getattr(classifier, name) is not None for name in classifier.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = classifier.no_such_name  # pyright: ignore[reportAttributeAccessIssue]
