"""A Ray cluster of several machines, started as a user starts one, with `classifier` installed on none of them."""

import json
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, can_be_made, hosts, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
PORT, DASHBOARD = 6379, 8265


class Cluster:
    """A head on the first machine, which runs no workers, and a node on each of the others."""

    def __init__(self, machines: list[Host], home: Path) -> None:
        self.machines, self.home = machines, home
        self.head = machines[0]
        self.shared = home / "shared"
        self.shared.mkdir()
        # The packages of this environment, without what `pip install -e` links to.
        venv.create(home / "env", with_pip=False)
        packages = next((home / "env" / "lib").glob("python*/site-packages"))
        (packages / "all.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        self.python = home / "env" / "bin" / "python"
        (home / ".ray").mkdir()
        token = home / ".ray" / "auth_token"
        token.touch(mode=0o600)
        token.write_text("0123456789abcdef" * 4)
        self.nodes: dict[str, subprocess.Popen] = {}

    def start(self, machine: Host, environment: dict[str, str] | None = None) -> None:
        """Start Ray on a machine, and wait until it has joined."""
        words = [str(self.python), "-m", "ray.scripts.scripts", "start", f"--node-ip-address={machine.address}"]
        if machine is self.head:
            words += ["--head", f"--port={PORT}", f"--dashboard-host={machine.address}", "--num-cpus=0"]
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": "60"} | (environment or {})
        else:
            words += [f"--address={self.head.address}:{PORT}", "--num-cpus=1"]
        words += ["--object-store-memory=200000000", "--disable-usage-stats", "--block"]
        path = f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        log = self.home / f"{machine.name}.log"
        self.nodes[machine.name] = machine.start(*words, log=log, PATH=path, **(environment or {}))
        wait_for(lambda: machine.address in self.living(), 90, f"Ray on {machine.name}")

    def power_off(self) -> None:
        for machine in self.machines:
            machine.power_off()
        for node in self.nodes.values():
            node.wait(timeout=30)

    def ray(self, *words: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of Ray's, on the head."""
        there = {"RAY_API_SERVER_ADDRESS": f"http://{self.head.address}:{DASHBOARD}"} | environment
        return self.head.run(self.python, "-m", "ray.scripts.scripts", *words, timeout=timeout, **there)

    def ask(self, path: str, token: str | None = None) -> tuple[int, str]:
        """An HTTP answer of the dashboard, its code first."""
        key = ["-H", f"Authorization: Bearer {token}"] if token else []
        url = f"http://{self.head.address}:{DASHBOARD}{path}"
        done = self.head.run("curl", "-s", "-m", "20", "-w", "\n%{http_code}", *key, url)
        text, _, code = done.stdout.rpartition("\n")
        return int(code or 0), text

    @property
    def token(self) -> str:
        return (self.home / ".ray" / "auth_token").read_text()

    def living(self) -> set[str]:
        """Addresses of the nodes that the head believes alive."""
        code, text = self.ask("/nodes?view=summary", self.token)
        if code != 200:
            return set()
        nodes = json.loads(text)["data"]["summary"]
        return {node.get("ip", "") for node in nodes if node["raylet"].get("state") == "ALIVE"}

    def submit(self, *words: object, name: str, here: bool = True) -> None:
        """Submit a job and return; `here`: with the repository as its working directory."""
        where = ["--working-dir", str(ROOT)] if here else []
        done = self.ray("job", "submit", "--no-wait", "--submission-id", name, *where, "--", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self, name: str) -> str:
        code, text = self.ask(f"/api/jobs/{name}", self.token)
        return json.loads(text)["status"] if code == 200 else "UNKNOWN"

    def ended(self, name: str, seconds: float = 300) -> str:
        """The status of a job that came to its end."""
        wait_for(lambda: self.status(name) in ("SUCCEEDED", "FAILED", "STOPPED"), seconds, f"the end of {name}")
        return self.status(name)

    def logs(self, name: str) -> str:
        return self.ray("job", "logs", name).stdout


@contextmanager
def cluster_of(count: int) -> Iterator[Cluster]:
    # Not below /tmp, which each machine has of its own.
    home = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="cluster-"))
    try:
        with hosts(count, home) as machines:
            cluster = Cluster(machines, home)
            try:
                yield cluster
            finally:
                cluster.power_off()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """A head and two machines with a core each."""
    if not can_be_made():
        pytest.skip("machines of their own networks need root")
    assert shutil.which("curl"), "curl asks the dashboard"
    with cluster_of(3) as cluster:
        for machine in cluster.machines:
            cluster.start(machine)
        yield cluster
