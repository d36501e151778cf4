"""The READMEs match the code: trees, verbs, flags, files, links, and the keys of result.json."""

import re
import subprocess
from pathlib import Path

import pytest

from classifier.config.experiment import setting_names
from classifier.runs.folder import RunFolder
from jobs.cli.verbs import SUMMARIES
from tests import documented
from tests.test_layers import LAYERS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("classifier", "jobs", "tests/benchmarks")
PATHS = [ROOT / "README.md", *(ROOT / name / "README.md" for name in ("classifier", "cluster", "jobs", "tests"))]
READMES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
VERBS_README = READMES["jobs/README.md"]
# Of Ray, torchrun, pip, curl and the benchmarks.
OTHER_FLAGS = {"address", "again", "device", "entrypoint_num_gpus", "follow", "generate", "head", "no_wait", "set"}
OTHER_FLAGS |= {"target", "nproc_per_node", "working_dir", "data_binary"}


def listed(text: str) -> set[str]:
    """Paths in a captioned tree: a line's indent says in which folder it lies."""
    found, folders = set(), []
    for block in re.findall(r"```text\n((?:classifier|jobs|tests)/.*?)```", text, re.DOTALL):
        for line in filter(str.strip, block.splitlines()):
            depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
            del folders[depth:]
            if name.endswith("/"):
                folders.append(name.rstrip("/"))
            else:
                found.add("/".join([*folders, name]))
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_trees_list_every_source_file_and_no_other(folder):
    there = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py"}
    own = listed(READMES[f"{folder.partition('/')[0]}/README.md"])
    shown = own | {name for name in listed(READMES["README.md"]) if name.startswith(f"{folder}/")}
    assert shown == there


def test_top_level_folders_are_the_agreed_ones():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {n.split("/")[0] for n in names if "/" in n} <= {"classifier", "jobs", "cluster", "tests", ".ci", ".github"}


def test_every_verb_has_a_section_in_the_order_of_the_help():
    verbs = VERBS_README.partition("## The verbs\n")[2].partition("\n## ")[0]
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", verbs, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(SUMMARIES)
    assert all(f"classifier {verb}" in text for verb, text in sections.items())


def test_every_file_of_the_cluster_is_named():
    names = {str(p.relative_to(ROOT / "cluster")) for p in (ROOT / "cluster").rglob("*") if p.is_file()} - {"README.md"}
    table = READMES["cluster/README.md"].partition("## The files\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([\w/-]*(?:\.yaml|\.sh|Dockerfile))`", table)) == names


@pytest.mark.parametrize("name", READMES)
def test_commands_have_the_flags_of_their_verb(name):
    for verb, flags in documented.commands(documented.code(READMES[name])):
        assert flags <= documented.flags_of(verb), f"{name}: classifier {verb}"


@pytest.mark.parametrize("name", READMES)
def test_flags_exist(name):
    known = set(setting_names()).union(*map(documented.flags_of, SUMMARIES))
    sections = {setting.partition(".")[0] for setting in setting_names()}  # --workers.*
    assert documented.flags(READMES[name]) <= known | sections | OTHER_FLAGS


@pytest.mark.parametrize("name", READMES)
def test_relative_links_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", READMES[name]):
        path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
        assert path.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("name", READMES)
def test_source_files_exist(name):
    for path in re.findall(r"`((?:classifier|jobs|cluster|tests)/[\w./-]+\.\w+)`", READMES[name]):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_the_contract_lists_the_keys_of_every_result(tmp_path):
    table = VERBS_README.partition("| key of `result.json`")[2].partition("\n\n")[0]
    keys = [key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)]
    run = RunFolder.create(tmp_path, "run")
    result = run.write_result("curve", "finished")
    run.close()
    assert sorted(keys) == sorted(result)


def test_exit_codes():
    from jobs.cli import verb

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", VERBS_README, re.MULTILINE)}
    assert codes == {verb.EXIT_DONE, verb.EXIT_FAILED, verb.EXIT_USER_ERROR, verb.EXIT_ALARM, verb.EXIT_INTERRUPTED}


def test_the_floors_are_those_of_the_layers():
    block = re.search(r"```text\n(api\n.*?)```", READMES["classifier/README.md"], re.DOTALL)
    assert block, "classifier/README.md shows no floors"
    layers = [{n.partition(".")[2] for n in layer if n.startswith("classifier.")} for layer in reversed(LAYERS)]
    assert [set(line.split()) for line in block[1].splitlines()] == [layer for layer in layers if layer]
