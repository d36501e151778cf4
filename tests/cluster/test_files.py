"""The files in cluster/: valid for Ray, Kubernetes, Docker and Slurm, secure by default, and self-documenting."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml

from classifier.errors import ConfigError
from jobs.cli.parser import parse
from jobs.launch.serving import ENVIRONMENT
from jobs.serve import VERB, deploy
from tests import documented

ROOT = Path(__file__).resolve().parent.parent.parent
CLUSTER = ROOT / "cluster"
# The schemas of KubeRay v1.7.0, if they are beside this repository.
SCHEMAS = ROOT.parent / "shared" / "kuberay"
RAY = metadata.version("ray")
FILES = sorted(p for p in CLUSTER.rglob("*") if p.is_file() and p.name not in ("README.md", "prices.yaml"))
SERVING = ("serve.yaml", "rayservice.yaml")
RAY_UP = ("aws.yaml", "gcp.yaml", "local.yaml")


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name} is missing: install the test extra"
    return found


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def resources() -> list[tuple[str, dict]]:
    """Return Ray's Kubernetes resources, each with its file name."""
    found = [(path, one) for path in sorted((CLUSTER / "kubernetes").glob("*.yaml")) for one in documents(path)]
    return [(path.name, one) for path, one in found if one["apiVersion"] == "ray.io/v1"]


def cluster_of(resource: dict) -> dict:
    parts = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    return resource["spec"][parts[resource["kind"]]] if resource["kind"] in parts else resource["spec"]


def unknown_keys(value: object, schema: dict, path: str = "") -> list[str]:
    """Return the keys that are not in the schema: Kubernetes would drop them silently."""
    if isinstance(value, list):
        return [found for i, one in enumerate(value) for found in unknown_keys(one, schema["items"], f"{path}[{i}]")]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    known, other = schema.get("properties", {}), schema.get("additionalProperties")
    found = [f"{path}.{key}" for key in value if key not in known and not other]
    for key, inner in value.items():
        found += unknown_keys(inner, known.get(key, other if isinstance(other, dict) else {}), f"{path}.{key}")
    return found


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_accepts_its_files(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    written = yaml.safe_load((CLUSTER / name).read_text())
    config = prepare_config(dict(written))
    validate_config(config)
    assert written.keys() - config.keys() <= {"min_workers"}  # Ray moves it into the node type


def test_ray_accepts_the_file_for_one_machine():
    """Ray has no defaults for its provider, so the file must be complete."""
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((CLUSTER / "one-machine.yaml").read_text()), schema)


@pytest.mark.parametrize("name", RAY_UP)
def test_launched_clusters_are_private_and_pinned(name):
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(yaml.safe_load((CLUSTER / name).read_text()))
    text = json.dumps(config)
    assert "0.0.0.0" not in text
    assert "wheels/latest" not in text
    starts = [c for c in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "RAY_JOB_STOP_WAIT_TIME_S=120" in starts[0]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"]
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_copies_of_the_repository_contain_all_packages():
    """Patterns like runs/ without a leading slash would also leave out classifier/runs."""
    from ray._private.thirdparty.pathspec.pathspec import PathSpec

    files = [path.relative_to(ROOT) for name in ("classifier", "jobs") for path in (ROOT / name).rglob("*.py")]
    patterns = [(ROOT / ".rayignore").read_text().splitlines()]
    patterns += [yaml.safe_load((CLUSTER / name).read_text()).get("rsync_exclude", []) for name in RAY_UP]
    for lines in patterns:
        assert [*PathSpec.from_lines("gitwildmatch", lines).match_files(files)] == []


def test_spot_machines_have_a_fallback_of_the_same_kind():
    for name in ("aws.yaml", "gcp.yaml"):
        types = yaml.safe_load((CLUSTER / name).read_text())["available_node_types"]
        spot, other = types["gpu-spot"], types["gpu-on-demand"]
        assert spot["resources"] == other["resources"]
        assert "spot" in json.dumps(spot).lower()
        assert "spot" not in json.dumps(other).lower()


@pytest.mark.parametrize(("name", "resource"), resources(), ids=lambda value: value if isinstance(value, str) else "")
def test_kuberay_accepts_its_resources(name, resource):
    path = SCHEMAS / f"{resource['kind'].lower()}s.v1.schema.json"
    if not path.exists():
        pytest.skip(f"KubeRay's schemas are not at {SCHEMAS}")
    schema = json.loads(path.read_text())
    jsonschema.validate(resource, schema)
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    assert unknown_keys(resource, schema) == []
    assert unknown_keys(resource | {"sepc": {}}, schema) == [".sepc"]


@pytest.mark.parametrize(("name", "resource"), resources(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_unprivileged(name, resource):
    cluster = cluster_of(resource)
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["networkPolicy"]["mode"] == "DenyAllIngress"
    assert cluster["rayVersion"] == RAY
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["terminationGracePeriodSeconds"] >= 120
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert {"requests", "limits"} <= container["resources"].keys()
            assert {"readinessProbe", "livenessProbe"} <= container.keys()


def test_dockerfile_passes_the_linter_and_uses_an_unprivileged_user():
    done = subprocess.run([tool("hadolint"), str(CLUSTER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (CLUSTER / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"\S+:\d+\.\d+\.\d+-slim\S*", base) for base in stages)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["1000"] * len(stages)
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert set(packages.values()) <= {name for line in copied for name in line.split()}


def test_slurm_script_passes_the_linter():
    done = subprocess.run([tool("shellcheck"), str(CLUSTER / "slurm.sh")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_file_is_bound_to_the_loopback():
    services = documents(CLUSTER / "compose.yaml")[0]["services"]
    assert services["head"]["ports"] == ["127.0.0.1:8265:8265"]
    assert "ports" not in services["worker"]
    for service in services.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]


def test_the_container_that_serves_has_keys_and_few_rights():
    service = documents(CLUSTER / "serve.yaml")[0]["services"]["serve"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["secrets"] == ["keys"]
    stage = (CLUSTER / "Dockerfile").read_text().split("\nFROM ")[1]
    (entry_point,) = re.findall(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)
    words = json.loads(entry_point)
    assert words[words.index("--key_file") + 1] == "/run/secrets/keys"
    assert parse(VERB, [*words[2:], *service["command"]]).options.host == "0.0.0.0"
    assert "http://127.0.0.1:8000/v2/health/ready" in stage


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")  # in Ray's own schema
def test_ray_accepts_the_service(monkeypatch):
    from ray.serve.schema import ServeDeploySchema

    (service,) = [one for _, one in resources() if one["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "classifier_jobs.serve:deploy"
    cluster = cluster_of(service)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {one["name"]: one["value"] for one in container["env"]} == ENVIRONMENT
    # Its arguments are those of the verb; keys and bundles are only on the workers.
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    with pytest.raises(ConfigError, match="key_file is missing"):
        deploy({name: value for name, value in application.args.items() if name != "key_file"})
    deployed = deploy(application.args)._bound_deployment
    assert (deployed.name, deployed.user_config) == ("replica", {"turn": 0})
    assert application.args["key_file"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_document_their_use_and_contain_no_secrets(path):
    text = path.read_text()
    head = text.partition("\n\n")[0] if path.suffix != ".sh" else text.partition("#SBATCH")[0]
    wanted = ("Build:",) if path.name == "Dockerfile" else ("Start:", "Stop:")
    assert all(word in head for word in wanted)
    if path.name not in ("Dockerfile", "slurm.sh", "rayjob.yaml"):
        assert ("Ask:" if path.name in SERVING else "Submit:") in head
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|(?i:password|secret|token): *[A-Za-z0-9+/]{16,}", text
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_versions_are_the_tested_ones(path):
    text = path.read_text()
    assert set(re.findall(r"(?:ray:|ray\[[a-z,]+\]==|rayVersion: \")(\d+\.\d+\.\d+)", text)) <= {RAY}
    for name in ("torch", "torchvision"):
        assert set(re.findall(rf"\b{name}==(\S+)", text)) <= {metadata.version(name).partition("+")[0]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_documented_commands_exist(path):
    """The verbs, settings and files in the documentation of the files exist."""
    text = path.read_text().replace("COPY classifier", "")
    for verb, flags in documented.commands(text):
        assert flags <= documented.flags_of(verb)
    assert all((ROOT / name).exists() for name in re.findall(r"\bcluster/[\w./-]+\w", text))
