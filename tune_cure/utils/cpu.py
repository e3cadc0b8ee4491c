"""CPU settings of a process that trains."""

import ctypes
import sys

import torch

# Parameters of mallopt in glibc's <malloc.h>; other C libraries have no `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20  # bytes; larger blocks go back to the system. glibc's own upper bound of the threshold.


def configure_cpu(count: int | None) -> None:
    """Set the number of torch's threads, and keep freed memory in the process.

    glibc would return freed memory to the system. Each step's activations would then lie on new pages, which the
    system fills with zeros first: benchmarks/cpu.py measures the cost.

    Args:
        count: How many threads; None leaves the number to torch.
    """
    if count is not None:
        torch.set_num_threads(count)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_TRIM_THRESHOLD, -1)
            libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
