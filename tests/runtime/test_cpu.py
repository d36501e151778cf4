"""Freed memory is reused: a step requests none from the kernel."""

import math
import subprocess
import sys

import pytest

from classifier.runtime import cpu

CODE = """
import resource, sys
import torch
from classifier.runtime import cpu
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    cpu.setup()
    cpu.setup()
def step():
    torch.ones(32 << 18)  # 32 MiB
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_steps_after_setup_fault_no_new_pages() -> None:
    def faults(word: str) -> int:
        done = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 0.1 * faults("leave")


@pytest.mark.parametrize(
    ("busy", "own", "threads", "lost"),
    [
        (20, 20, 2, 0.0),  # alone, on both cores
        (10, 10, 2, 0.0),  # alone, and not able to use both
        (20, 10, 2, 0.5),  # two others on two cores
        (20, 10, 1, 0.0),  # another on the other core
        (20, 5, 1, 0.5),
        (20, 5, 2, 0.75),
        (3, 4, 2, 0.0),  # clocks that disagree
    ],
)
def test_share_of_the_time_that_is_lost_to_other_work(busy, own, threads, lost):
    assert cpu.compute_lost_share(10, busy, own, threads=threads, cores=2) == pytest.approx(lost)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": ""}, math.inf),
        ({}, math.inf),
    ],
)
def test_limit_of_a_control_group(tmp_path, monkeypatch, files, limit):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu.cgroup_limit(tmp_path) == limit
    monkeypatch.setattr(cpu, "CGROUP", tmp_path)
    assert cpu.available_cores() == min(cpu.affine_cores(), max(1, math.ceil(min(limit, 1000))))


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [
        ([2.0, 0.1, 0.1], False),  # while libraries are loaded, alone
        ([2.0, 3.0, 1.0], False),  # beside another process: 1 core
        ([2.0, 4.0, 3.0], True),  # on both cores beside another process, which wanted more than half a core
        ([2.0, 4.0, 3.9], False),  # on both cores, alone
        ([0.1, 0.1, 0.1], True),  # too short: another's spike would decide
    ],
)
def test_load_of_other_processes_is_measured_again_where_it_may_be_wrong(monkeypatch, seconds, waits):
    later = [cpu.LOAD_SECONDS, 1.5 * cpu.LOAD_SECONDS, 0.0]
    clocks = iter([[0.0] * 3, seconds, [0.0] * 3, later])
    monkeypatch.setattr(cpu, "_busy_seconds", lambda: next(clocks))
    monkeypatch.setattr(cpu.time, "sleep", lambda _: None)
    wall, busy, own = later if waits else seconds
    assert cpu.OtherLoad().busy_cores() == pytest.approx((busy - own) / wall)
    assert len(list(clocks)) == (0 if waits else 2)


def test_children_that_have_ended_are_no_other_work():
    before = cpu._busy_seconds()
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.5: pass"], check=True)
    assert cpu._busy_seconds()[2] - before[2] > 0.4


def test_this_process_alone_is_no_other_work():
    load = cpu.OtherLoad()
    assert 0 <= load.lost_share(1) <= 1
    assert cpu.compute_lost_share(0, 0, 0, threads=1, cores=1) == 0
