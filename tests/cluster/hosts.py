"""Machines for tests: groups of processes that share only this kernel. Each has its own network, process tree, host
name, /tmp and /dev/shm; a switch connects their networks and nothing else. Needs root, as in a container.

Killing a machine's init process kills all others in it: a power cut.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# The init process of a machine: it waits, and reaps dead children.
INIT = "import signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: time.sleep(3600)"
NETWORK = "10.77.0"


def sh(*args: object) -> None:
    subprocess.run([*map(str, args)], check=True, capture_output=True)


def can_create_hosts() -> bool:
    """Return whether this process may create networks and mount file systems."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True).returncode == 0


@dataclass
class Host:
    """A machine. switch: pid of the process whose network is the switch."""

    number: int
    home: Path
    switch: int
    init: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        self.power_on()

    def power_on(self) -> None:
        """Start it with no processes and empty local disks."""
        args = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.init = subprocess.Popen([*args, sys.executable, "-c", INIT], stderr=subprocess.DEVNULL)
        wait_for(lambda: self.init_pid() is not None)
        for path, size in (("/tmp", "2g"), ("/dev/shm", "1g")):
            self.sh("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
        # Gloo looks up its own address by the host name.
        names = self.home / "hosts"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{n} host{n}\n" for n in range(1, 10)))
        self.sh("mount", "--bind", names, "/etc/hosts")
        self.sh("hostname", self.name)
        inside, outside = f"h{self.number}-{os.getpid() % 10000}", f"s{self.number}"
        sh("ip", "link", "add", inside, "type", "veth", "peer", "name", f"{inside}s")
        sh("ip", "link", "set", inside, "netns", self.init_pid())
        sh("ip", "link", "set", f"{inside}s", "netns", self.switch)
        # Its previous cable, which the kernel may not have removed yet.
        old = ("nsenter", "--net", "-t", str(self.switch), "ip", "link", "del", outside)
        subprocess.run(old, check=False, capture_output=True)
        in_switch = ("nsenter", "--net", "-t", self.switch, "ip", "link", "set")
        sh(*in_switch, f"{inside}s", "name", outside)
        sh(*in_switch, outside, "master", "br0", "up")
        self.sh("ip", "link", "set", inside, "name", "eth0")
        self.sh("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.sh("ip", "link", "set", device, "up")

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    def init_pid(self) -> int | None:
        """Return the pid of the machine's init process, as seen from outside."""
        return child_of(self.init.pid)

    def command(self, *args: object) -> list[str]:
        """Return the command line that runs a command in the machine."""
        spaces = ("--net", "--mount", "--uts", "--ipc", "--pid")
        return ["nsenter", *spaces, "-t", str(self.init_pid()), *map(str, args)]

    def sh(self, *args: object) -> None:
        sh(*self.command(*args))

    def environment(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        return clean | {"HOME": str(self.home), "RAY_AUTH_MODE": "token"} | more

    def start(self, *args: object, log: Path, **more: str) -> subprocess.Popen:
        """Start a command in the machine."""
        with log.open("a") as file:
            return subprocess.Popen(
                self.command(*args), env=self.environment(**more), cwd=self.home, stdout=file, stderr=file
            )

    def run(self, *args: object, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine to its end."""
        return subprocess.run(
            self.command(*args),
            env=self.environment(**more),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def unplug(self, *, unplugged: bool) -> None:
        """Unplug its network cable, or plug it in again."""
        sh("nsenter", "--net", "-t", self.switch, "ip", "link", "set", f"s{self.number}", "down" if unplugged else "up")

    def power_off(self) -> None:
        """Kill everything in it at once."""
        if self.init.poll() is None and (inner := self.init_pid()) is not None:
            os.kill(inner, signal.SIGKILL)
        self.init.wait(timeout=30)

    def processes(self, word: str) -> list[int]:
        """Return the pids, as seen from outside, of its processes whose command line contains a word."""
        if self.init_pid() is None:
            return []
        space = os.readlink(f"/proc/{self.init_pid()}/ns/pid")
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                is_same = os.readlink(entry / "ns" / "pid") == space
                if is_same and word in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@contextmanager
def create_hosts(count: int, home: Path) -> Iterator[list[Host]]:
    """Create `count` machines on one switch; all of them share the folder `home`."""
    args = ["unshare", "--net", "--kill-child", "--fork", sys.executable, "-c", INIT]
    switch = subprocess.Popen(args, stderr=subprocess.DEVNULL)
    created: list[Host] = []
    try:
        wait_for(lambda: child_of(switch.pid) is not None)
        inner = child_of(switch.pid)
        assert inner is not None
        for args in (("add", "br0", "type", "bridge"), ("set", "br0", "up"), ("set", "lo", "up")):
            sh("nsenter", "--net", "-t", inner, "ip", "link", *args)
        for number in range(1, count + 1):
            created.append(Host(number, home, inner))
        yield created
    finally:
        for host in created:
            host.power_off()
        switch.kill()
        switch.wait(timeout=30)


def child_of(pid: int) -> int | None:
    """Return a process's first child, or None if the process has none or is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def wait_for(condition, seconds: float = 60, what: str = "the condition") -> None:
    start_time = time.monotonic()
    while not condition():
        assert time.monotonic() - start_time < seconds, f"timed out waiting for {what}"
        time.sleep(0.05)
