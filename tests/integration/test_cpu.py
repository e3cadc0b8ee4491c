import subprocess
import sys

import pytest

FAULTS = """
import resource

import torch

from tune_cure.utils import cpu

{prepare}


def step():
    kept = [torch.ones(8 * 2**18) for _ in range(16)]  # of 8 MiB each, freed together


for _ in range(10):  # until the allocator has found its places
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads())
"""


def run(prepare: str) -> tuple[int, int]:
    """Page faults of three steps, and torch's threads."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(prepare=prepare)], capture_output=True, check=True)
    faults, threads = done.stdout.split()
    return int(faults), int(threads)


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems do with freed memory is theirs to know")
def test_a_training_step_reuses_the_memory_that_the_step_before_freed() -> None:
    faults, threads = run("cpu.configure_cpu(1)")
    assert threads == 1
    assert faults < 1000  # 98,000 without, but where something small happens to lie above what is freed


def test_torch_chooses_the_number_of_threads_if_none_is_given() -> None:
    assert run("cpu.configure_cpu(None)")[1] == run("")[1]
