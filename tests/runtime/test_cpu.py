"""Freed memory is used again: a step asks the kernel for none."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from classifier.runtime.cpu import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
    keep_freed_memory()
def step():
    torch.ones(32 << 18)  # 32 MiB
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_step_asks_for_no_new_pages() -> None:
    def faults(word: str) -> int:
        done = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 0.1 * faults("leave")
