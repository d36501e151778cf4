"""A training in a process of its own, watched from outside and killed on purpose."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import RunError
from classifier.storage.bucket import Storage

from ..cli.environment import VERBS, trust_options
from ..launch import run_storage

# A training that makes no progress for this long hangs.
TIMEOUT_SECONDS = 300.0
# What a worker logs as it starts (jobs/launch/workers.py).
WORKER_LINE = re.compile(r"worker (\d+): process (\d+) on node (\w+) of (\S+)")


@dataclass(frozen=True)
class TrainingProcess:
    """`jobs/train.py` on one run folder. Its output goes to FOLDER.log."""

    folder: Path
    process: subprocess.Popen
    storage: Storage | None

    @classmethod
    def start(cls, folder: Path, *options: str, storage: Storage | None) -> "TrainingProcess":
        """Start `train.py` with these options, which must lead to this run folder."""
        with Path(f"{folder}.log").open("a") as log:
            command = [sys.executable, str(VERBS / "train.py"), *options, *trust_options(), "--out", str(folder.parent)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        return cls(folder, process, storage)

    def newest_step(self) -> int:
        """The step of the newest checkpoint; -1 before the first."""
        if self.storage is not None:
            try:
                return self.storage.newest_step()
            except OSError:
                return -1
        manifests = self.folder.glob("checkpoints/*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in manifests), default=-1)

    def wait_for_step(self, step: int) -> bool:
        """Wait for a checkpoint of this step or a later one; false if the training ended before.

        RunError if there is no new checkpoint for TIMEOUT_SECONDS."""
        last, progressed = self.newest_step(), time.monotonic()
        while last < step:
            if self.process.poll() is not None:
                return self.newest_step() >= step
            now = self.newest_step()
            if now > last:
                last, progressed = now, time.monotonic()
            if time.monotonic() - progressed > TIMEOUT_SECONDS:
                self.process.kill()
                raise RunError(f"{self.folder} made no progress for {TIMEOUT_SECONDS:.0f} s: see {self.folder}.log")
            time.sleep(0.005 if self.storage is None else 0.2)
        return True

    def workers(self) -> list[tuple[str, int, str, str]]:
        """Rank, process id, node id and host name of each Ray worker that ever started, the newest last."""
        log = self.folder / ("run.log" if self.storage is None else run_storage.WORKER_LOG)
        stored = self.storage.read(run_storage.WORKER_LOG) if self.storage is not None else None
        text = stored.decode() if stored is not None else log.read_text() if log.exists() else ""
        return [(rank, int(pid), node, host) for rank, pid, node, host in WORKER_LINE.findall(text)]

    def wait_for_new_workers(self, count: int) -> None:
        """Wait until more than `count` workers have started, or the training ended. RunError if none starts."""
        began = time.monotonic()
        while len(self.workers()) == count and self.process.poll() is None:
            if time.monotonic() - began > TIMEOUT_SECONDS:
                self.process.kill()
                raise RunError(
                    f"no worker replaced the killed one within {TIMEOUT_SECONDS:.0f} s: see {self.folder}.log"
                )
            time.sleep(0.05)

    def wait(self) -> None:
        """Wait for the end. RunError with the last line of its log if the training failed."""
        code = self.process.wait()
        if code != 0:
            last_line = Path(f"{self.folder}.log").read_text().strip().rpartition("\n")[2]
            raise RunError(f"the training in {self.folder} failed with exit code {code}: {last_line}")

    def kill(self, kind: str, rng: random.Random) -> None:
        """Kill the driver, a worker or a node, or stop the driver. RunError if there is no such worker or node."""
        if kind == "driver":
            self.process.kill()
            return
        if kind == "stop":
            self.process.terminate()
            return
        # The newest line of each rank is the worker that is alive.
        alive = {rank: (pid, node, host) for rank, pid, node, host in self.workers()}
        if kind == "node":  # not this one: the drill itself would die with it
            alive = {rank: worker for rank, worker in alive.items() if worker[2] != socket.gethostname()}
        if not alive:
            where = " on another node" if kind == "node" else ""
            raise RunError(f"the log of {self.folder} lists no worker{where} to kill")
        pid, node, host = alive[rng.choice(sorted(alive))]
        if kind == "worker" and host == socket.gethostname():
            os.kill(pid, signal.SIGKILL)
        else:
            from ..launch.cluster import kill_on_node

            kill_on_node(node, None if kind == "node" else pid)
