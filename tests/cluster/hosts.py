"""Machines for tests: processes that share this kernel and nothing else. Each has a network, a process tree, a name, a
/tmp and a /dev/shm of its own; a switch joins their networks, and no other. Needs root, as in a container.

Killing a machine's first process ends all others in it: that is its power cut.
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

# What a machine's first process does: waits, and buries the dead.
INIT = "import signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: time.sleep(3600)"
NETWORK = "10.77.0"


def sh(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def can_be_made() -> bool:
    """Whether this process may make networks and mount."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True).returncode == 0


@dataclass
class Host:
    """One machine; `switch` is the process whose network is the switch."""

    number: int
    home: Path
    switch: int
    init: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        self.power_on()

    def power_on(self) -> None:
        """Make it anew: its processes, and what lay on its own disks, are gone."""
        words = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.init = subprocess.Popen([*words, sys.executable, "-c", INIT], stderr=subprocess.DEVNULL)
        wait_for(lambda: self.inner() is not None)
        for place, size in (("/tmp", "2g"), ("/dev/shm", "1g")):
            self.sh("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
        # Gloo finds its own address by the machine's name.
        names = self.home / "hosts"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{n} host{n}\n" for n in range(1, 10)))
        self.sh("mount", "--bind", names, "/etc/hosts")
        self.sh("hostname", self.name)
        far, near = f"h{self.number}-{os.getpid() % 10000}", f"s{self.number}"
        sh("ip", "link", "add", far, "type", "veth", "peer", "name", f"{far}s")
        sh("ip", "link", "set", far, "netns", self.inner())
        sh("ip", "link", "set", f"{far}s", "netns", self.switch)
        # Its cable of before, which the kernel has not taken away yet.
        old = ("nsenter", "--net", "-t", str(self.switch), "ip", "link", "del", near)
        subprocess.run(old, check=False, capture_output=True)
        in_switch = ("nsenter", "--net", "-t", self.switch, "ip", "link", "set")
        sh(*in_switch, f"{far}s", "name", near)
        sh(*in_switch, near, "master", "br0", "up")
        self.sh("ip", "link", "set", far, "name", "eth0")
        self.sh("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.sh("ip", "link", "set", device, "up")

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    def inner(self) -> int | None:
        """The machine's first process, as this machine numbers it."""
        return child_of(self.init.pid)

    def command(self, *words: object) -> list[str]:
        """What runs these words in the machine."""
        spaces = ("--net", "--mount", "--uts", "--ipc", "--pid")
        return ["nsenter", *spaces, "-t", str(self.inner()), *map(str, words)]

    def sh(self, *words: object) -> None:
        sh(*self.command(*words))

    def environment(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        return clean | {"HOME": str(self.home), "RAY_AUTH_MODE": "token"} | more

    def start(self, *words: object, log: Path, **more: str) -> subprocess.Popen:
        """Begin a command in the machine."""
        with log.open("a") as file:
            return subprocess.Popen(
                self.command(*words), env=self.environment(**more), cwd=self.home, stdout=file, stderr=file
            )

    def run(self, *words: object, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """A command in the machine, to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(**more),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def cut_off(self, *, away: bool) -> None:
        """Pull its network cable, or put it back."""
        sh("nsenter", "--net", "-t", self.switch, "ip", "link", "set", f"s{self.number}", "down" if away else "up")

    def power_off(self) -> None:
        """End everything in it at once."""
        if self.init.poll() is None and (inner := self.inner()) is not None:
            os.kill(inner, signal.SIGKILL)
        self.init.wait(timeout=30)

    def processes(self, word: str) -> list[int]:
        """Its processes whose command line has a word, as this machine numbers them."""
        if self.inner() is None:
            return []
        space = os.readlink(f"/proc/{self.inner()}/ns/pid")
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                same = os.readlink(entry / "ns" / "pid") == space
                if same and word in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@contextmanager
def hosts(count: int, home: Path) -> Iterator[list[Host]]:
    """So many machines on one switch; `home` is a folder that all of them see."""
    words = ["unshare", "--net", "--kill-child", "--fork", sys.executable, "-c", INIT]
    switch = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    made: list[Host] = []
    try:
        wait_for(lambda: child_of(switch.pid) is not None)
        inner = child_of(switch.pid)
        assert inner is not None
        for words in (("add", "br0", "type", "bridge"), ("set", "br0", "up"), ("set", "lo", "up")):
            sh("nsenter", "--net", "-t", inner, "ip", "link", *words)
        for number in range(1, count + 1):
            made.append(Host(number, home, inner))
        yield made
    finally:
        for host in made:
            host.power_off()
        switch.kill()
        switch.wait(timeout=30)


def child_of(pid: int) -> int | None:
    """Its first child, if it lives and has one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def wait_for(condition, seconds: float = 60, what: str = "it") -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} never came to be"
        time.sleep(0.05)
