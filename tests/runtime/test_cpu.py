"""Freed memory is reused: a step requests none from the kernel."""

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


def test_this_process_alone_is_no_other_work():
    load = cpu.OtherLoad()
    assert 0 <= load.lost_share(1) <= 1
    assert cpu.compute_lost_share(0, 0, 0, threads=1, cores=1) == 0
