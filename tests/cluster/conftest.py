"""A Ray cluster of several machines, started as a user would; `classifier` is not installed on them."""

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

from tests.cluster.hosts import Host, can_create_hosts, create_hosts, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
PORT, DASHBOARD = 6379, 8265


class Cluster:
    """A head without workers on the first machine, and a node on each of the others."""

    def __init__(self, machines: list[Host], home: Path) -> None:
        self.machines, self.home = machines, home
        self.head = machines[0]
        self.shared = home / "shared"
        self.shared.mkdir()
        # The packages of this environment, without those installed by `pip install -e`.
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
        args = [str(self.python), "-m", "ray.scripts.scripts", "start", f"--node-ip-address={machine.address}"]
        if machine is self.head:
            args += ["--head", f"--port={PORT}", f"--dashboard-host={machine.address}", "--num-cpus=0"]
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": "60"} | (environment or {})
        else:
            args += [f"--address={self.head.address}:{PORT}", "--num-cpus=1"]
        args += ["--object-store-memory=200000000", "--disable-usage-stats", "--block"]
        path = f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        log = self.home / f"{machine.name}.log"
        self.nodes[machine.name] = machine.start(*args, log=log, PATH=path, **(environment or {}))
        wait_for(lambda: machine.address in self.alive_nodes(), 90, f"Ray on {machine.name}")

    def power_off(self) -> None:
        for machine in self.machines:
            machine.power_off()
        for node in self.nodes.values():
            node.wait(timeout=30)

    def ray(self, *args: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's on the head."""
        variables = {"RAY_API_SERVER_ADDRESS": f"http://{self.head.address}:{DASHBOARD}"} | environment
        return self.head.run(self.python, "-m", "ray.scripts.scripts", *args, timeout=timeout, **variables)

    def http_get(self, path: str, token: str | None = None) -> tuple[int, str]:
        """Return the status code and text of the dashboard's HTTP response."""
        key = ["-H", f"Authorization: Bearer {token}"] if token else []
        url = f"http://{self.head.address}:{DASHBOARD}{path}"
        done = self.head.run("curl", "-s", "-m", "20", "-w", "\n%{http_code}", *key, url)
        text, _, code = done.stdout.rpartition("\n")
        return int(code or 0), text

    @property
    def token(self) -> str:
        return (self.home / ".ray" / "auth_token").read_text()

    def alive_nodes(self) -> set[str]:
        """Return the addresses of the nodes that the head considers alive."""
        code, text = self.http_get("/nodes?view=summary", self.token)
        if code != 200:
            return set()
        nodes = json.loads(text)["data"]["summary"]
        return {node.get("ip", "") for node in nodes if node["raylet"].get("state") == "ALIVE"}

    def submit(self, *args: object, name: str, upload: bool = True) -> None:
        """Submit a job without waiting for it. upload: send the repository as its working directory."""
        working_dir = ["--working-dir", str(ROOT)] if upload else []
        done = self.ray("job", "submit", "--no-wait", "--submission-id", name, *working_dir, "--", *args)
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self, name: str) -> str:
        code, text = self.http_get(f"/api/jobs/{name}", self.token)
        return json.loads(text)["status"] if code == 200 else "UNKNOWN"

    def wait_for_end(self, name: str, seconds: float = 300) -> str:
        """Wait for a job to end, and return its status."""
        wait_for(lambda: self.status(name) in ("SUCCEEDED", "FAILED", "STOPPED"), seconds, f"the end of {name}")
        return self.status(name)

    def logs(self, name: str) -> str:
        return self.ray("job", "logs", name).stdout


@contextmanager
def start_cluster(count: int) -> Iterator[Cluster]:
    # Not in /tmp: each machine has its own.
    home = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="cluster-"))
    try:
        with create_hosts(count, home) as machines:
            cluster = Cluster(machines, home)
            try:
                yield cluster
            finally:
                cluster.power_off()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and two machines with one core each."""
    if not can_create_hosts():
        pytest.skip("creating machines with their own networks needs root")
    assert shutil.which("curl"), "curl is needed to query the dashboard"
    with start_cluster(3) as cluster:
        for machine in cluster.machines:
            cluster.start(machine)
        yield cluster
