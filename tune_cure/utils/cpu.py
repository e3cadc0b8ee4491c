"""What a process that trains sets for itself on the CPU."""

import ctypes
import sys

import torch

# Of glibc's <malloc.h>; other C libraries have no `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 32 * 2**20  # bytes of a block; larger ones are given back. What glibc comes to by itself, were it left alone.


def configure_cpu(count: int | None) -> None:
    """From now on torch computes on `count` threads (None: as it chooses), and freed memory stays with the process.

    glibc gives it back to the system. So a step would have its activations on new pages, each of which the system has
    to fill with zeros first: benchmarks/cpu.py.
    """
    if count is not None:
        torch.set_num_threads(count)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_TRIM_THRESHOLD, -1)
            libc.mallopt(_MMAP_THRESHOLD, _MOST)
