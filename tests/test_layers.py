"""The layers: which package may import which, and what is loaded when."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Layers of packages, the lowest first. A package imports only from lower layers, never from its own or a higher one.
LAYERS = (
    ("classifier.errors", "classifier.extras", "classifier.version", "classifier.text"),
    ("classifier.runtime", "classifier.storage", "classifier.metrics"),
    ("classifier.config",),
    ("classifier.data", "classifier.models", "classifier.augment"),
    ("classifier.inference",),
    ("classifier.training", "classifier.bundle"),
    ("classifier.runs", "classifier.profiling", "classifier.export", "classifier.answers", "jobs.cli"),
    ("classifier.evaluation",),
    # Drift is measured against what evaluation collects, and shown by report.
    ("classifier.search", "classifier.compress", "classifier.drift", "classifier.pretraining"),
    # Updates train as compressions do.
    ("classifier.update",),
    ("classifier.report",),
    ("classifier.serve",),
    # Pages on which people look at images: neither knows the other.
    ("classifier.watch", "classifier.label"),
    ("classifier.api",),
    ("jobs.launch",),
    ("jobs.steps",),
    ("jobs.search", "jobs.studies"),
    ("jobs",),
)
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
# Per folder; jobs/ itself has one file per verb, however many there are.
MAX_FILES = 16


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def start_of(node: ast.ImportFrom, path: Path) -> str:
    """The full name of the module that a `from` statement imports from."""
    parents = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
    return ".".join([*parents, *([node.module] if node.module else [])])


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = start_of(node, path)
            # jobs/ is installed under another name, so it imports its own modules relatively.
            assert bool(node.level) == (start.partition(".")[0] == "jobs"), f"{path}: {start}"
            found |= {f"{start}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", sources("classifier"), ids=lambda p: str(p.relative_to(ROOT)))
def test_classifier_imports_no_command_line_and_reads_no_environment(path):
    assert not roots(path) & {"ray", "rich", "argparse", "click", "jobs"}
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not names & {"environ", "environb", "getenv", "putenv"}


def test_one_file_imports_argparse_and_few_folders_import_ray():
    users = {
        name: {str(p.relative_to(ROOT)) for p in sources("jobs") if name in roots(p)} for name in ("argparse", "ray")
    }
    assert users["argparse"] == {"jobs/cli/parser.py"}
    folders = {str(Path(user).parent) for user in users["ray"]}
    assert folders == {"jobs/launch", "jobs/search", "jobs/studies"}


def package_of(module: str) -> str:
    """The top package of classifier/ or jobs/ that contains a module; for the verbs, `jobs` itself."""
    top, _, rest = module.partition(".")
    package = f"{top}.{rest.partition('.')[0]}"
    return package if package in LAYER else top


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for folder in ("classifier", "jobs") for path in sources(folder)}
# Without the imports of classifier/__init__.py, which loads its public names on demand.
EDGES = {
    (module, name)
    for module, path in MODULES.items()
    for name in imports(path)
    if module != "classifier" and name.partition(".")[0] in ("classifier", "jobs")
}


def test_imports_go_down_only():
    for number, packages in reversed(list(enumerate(LAYERS))):
        print(f"{number:>2}  {'  '.join(packages)}")
    wrong = []
    for module, name in sorted(EDGES):
        here, there = package_of(module), package_of(name)
        if here != there and there != "classifier" and not LAYER[there] < LAYER[here]:
            wrong.append(f"{module} (layer {LAYER[here]}) imports {name} (layer {LAYER[there]})")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_layer():
    found = {package_of(module) for module in MODULES if module != "classifier"}
    assert found == set(LAYER)
    inside = {p.relative_to(ROOT).parts[1].removesuffix(".py") for p in sources("classifier")} - {"__init__"}
    assert {f"classifier.{name}" for name in inside} == {
        package for package in LAYER if package.startswith("classifier.")
    }


def unit_of(module: str) -> str:
    """The innermost package that contains a module; a file beside packages is its own unit."""
    target = module
    while target not in MODULES:
        target = target.rpartition(".")[0]
    parent = MODULES[target].parent
    has_packages = any((child / "__init__.py").exists() for child in parent.iterdir() if child.is_dir())
    return target if has_packages or MODULES[target].name == "__init__.py" else target.rpartition(".")[0]


def test_no_import_cycle_between_packages():
    below: dict[str, set[str]] = {}
    for module, name in EDGES:
        here, there = unit_of(module), unit_of(name)
        if here != there and not here.startswith(f"{there}."):  # a package's own __init__ may import its files
            below.setdefault(here, set()).add(there)
    order = graphlib.TopologicalSorter(below)
    order.prepare()  # CycleError names the cycle


def test_packages_import_only_public_names_of_each_other():
    private = [
        f"{module} imports {name}"
        for module, name in sorted(EDGES)
        if unit_of(module) != unit_of(name)
        and any(part.startswith("_") and part != "__version__" for part in name.split("."))
    ]
    assert not private, "\n".join(private)


def test_no_folder_has_too_many_files():
    folders = {path.parent for top in ("classifier", "jobs", "tests") for path in sources(top)} - {ROOT / "jobs"}
    counts = {str(f.relative_to(ROOT)): len([p for p in f.glob("*.py") if p.name != "__init__.py"]) for f in folders}
    assert not {folder: count for folder, count in counts.items() if count > MAX_FILES}


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split("\n")[-2].split())


def test_classifier_works_without_ray():
    code = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import classifier
for name in classifier.__all__:
    getattr(classifier, name)
import classifier.runs.recorder
"""
    assert "ray" not in loaded_by(code)


def test_images_are_listed_and_answered_without_torch_and_arrow():
    code = """
from classifier.answers import answering, listing, store
assert list(listing.ImageListing([".github", ".github/*.png"]))
store.AnswerStore("absent", {"format": "csv"})
"""
    assert not {"torch", "sklearn", "ray", "matplotlib", "pyarrow", "scipy"} & loaded_by(code)


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "sklearn", "ray", "matplotlib", "pyarrow", "PIL"}
    assert not heavy & loaded_by(
        "import classifier, classifier.config.experiment, classifier.config.recipes, classifier.runs.folder"
    )


VERBS = [p.stem for p in sorted((ROOT / "jobs").glob("*.py")) if p.name != "__init__.py"]
WRONG = [("tune", "--search.minuts", "2"), ("tune", "--recipe", "digit"), ("train", "--experiment", "absent.yaml")]


@pytest.mark.parametrize("words", [*((verb, "--help") for verb in VERBS), *WRONG], ids=" ".join)
def test_help_and_user_errors_load_nothing_heavy(words):
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
