"""Freed memory is reused: a step requests none from the kernel."""

import subprocess
import sys

import pytest

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
