"""A server process that has imported torch once and forks a process for each command that a test runs.

`python jobs/VERB.py` spends two thirds of a short test's time on imports. A forked command is still a process of its
own, with its own folder, environment, streams, signals and exit code; only the imports are shared. Ray is not among
them, as it reads its environment when it is imported. `ForkServer` is the tests' side; run as a script with the number
of a socket, this file is the server.
"""

import array
import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = (
    *("torch", "torch.distributed", "torch.nn.parallel", "torch.utils.tensorboard", "torchvision", "safetensors.torch"),
    *("pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet", "scipy.stats", "sklearn.model_selection", "optuna"),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.Image", "rich.live", "simplejpeg", "yaml"),
)


class Process:
    """A forked command, with the methods of subprocess.Popen that tests use."""

    def __init__(self, server: "ForkServer", args: Sequence[str], pid: int, streams: Sequence[IO[str] | None]) -> None:
        self.server, self.args, self.pid = server, args, pid
        self.stdout, self.stderr = streams
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.exit_codes.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. subprocess.TimeoutExpired after `timeout` seconds."""
        with self.server.changed:
            if not self.server.changed.wait_for(lambda: self.poll() is not None, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was written to the pipes: stdout and stderr."""
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                texts[number] = stream.read()

        streams = [(number, stream) for number, stream in enumerate((self.stdout, self.stderr)) if stream is not None]
        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(30)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it if it still runs, and close its pipes."""
        self.kill()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


class ForkServer:
    """Starts commands in forks of one server process."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT
            )
        self.pids: dict[int, int] = {}
        self.exit_codes: dict[int, int] = {}
        self.changed = threading.Condition()
        self.count = 0
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def start(
        self,
        args: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        affinity: Iterable[int],
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> Process:
        """Run a script with its arguments.

        affinity: the cores it may use, by number. stdout, stderr: None (inherited), subprocess.PIPE (text) or DEVNULL.
        """
        streams: list[IO[str] | None] = []
        fds = [os.open(os.devnull, os.O_RDONLY)]
        for target, inherited in ((stdout, 1), (stderr, 2)):
            if target == subprocess.PIPE:
                reader, writer = os.pipe()
                streams.append(os.fdopen(reader, encoding="utf-8"))
                fds.append(writer)
            else:
                streams.append(None)
                fds.append(os.dup(inherited) if target is None else os.open(os.devnull, os.O_WRONLY))
        self.count += 1
        number = self.count
        order = {"number": number, "args": [*args], "cwd": str(cwd), "env": dict(env), "affinity": [*affinity]}
        message = json.dumps(order).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        self.connection.sendmsg([len(message).to_bytes(4, "little")], rights)
        self.connection.sendall(message)
        for fd in fds:
            os.close(fd)
        with self.changed:
            assert self.changed.wait_for(lambda: number in self.pids, 300), "the fork server does not answer"
        return Process(self, args, self.pids[number], streams)

    def _listen(self) -> None:
        with self.connection.makefile(encoding="utf-8") as lines:
            for line in lines:
                kind, key, value = json.loads(line)
                with self.changed:
                    (self.pids if kind == "started" else self.exit_codes)[key] = value
                    self.changed.notify_all()

    def close(self) -> None:
        """End the server."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.process.wait(timeout=30)
        self.listener.join(timeout=30)
        self.connection.close()


def serve(connection: socket.socket) -> None:
    """Fork a process per order, and report its pid and its exit code, until the tests hang up."""
    sys.path.insert(0, str(ROOT))
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "classifier").rglob("*.py")]
    for name in (*PRELOADED, *sorted(modules)):
        __import__(name.removesuffix(".__init__"))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then hang up
    while True:
        ready, _, _ = select.select([connection, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            report_exits(connection)
        if connection in ready:
            head, fds, _, _ = socket.recv_fds(connection, 4, 3)
            if not head:
                return
            message = b""
            while len(message) < int.from_bytes(head, "little"):
                message += connection.recv(int.from_bytes(head, "little") - len(message))
            order = json.loads(message)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for fd in (connection.fileno(), reader, writer):
                    os.close(fd)
                run(order, fds)
            for fd in fds:
                os.close(fd)
            send(connection, "started", order["number"], pid)


def send(connection: socket.socket, *words: object) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def report_exits(connection: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        send(connection, "ended", pid, os.waitstatus_to_exitcode(status))


def _reopen(stream: Any) -> Any:
    is_line_buffered = stream is sys.stderr
    options = {"encoding": stream.encoding, "errors": stream.errors, "closefd": False}
    return open(stream.fileno(), "w", buffering=1 if is_line_buffered else -1, **options)


def run(order: dict[str, Any], fds: Sequence[int]) -> None:
    """Run the script as `python SCRIPT ARGS` would, in this forked process, and exit."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        # Those of the server have asked once what they are: a pipe cannot be sought in.
        sys.stdout, sys.stderr = (_reopen(stream) for stream in (sys.stdout, sys.stderr))
        os.sched_setaffinity(0, order["affinity"])
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv[:] = order["args"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:  # what the interpreter does at its end, but for the modules that all forks share
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
