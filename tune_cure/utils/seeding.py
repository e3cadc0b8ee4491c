"""Seeds of torch's global random state, from which networks draw their first weights and dropout its masks."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_global_state(device: torch.device) -> Iterator[None]:
    """Restore the global states of the CPU and of `device` after the context."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def seeded_global_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global states of the CPU and of `device` within the context, and restore them afterwards."""
    with kept_global_state(device):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every device's as well
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch of the run with `seed`: 32 bits, which is what the CPU's generator takes."""
    return random.Random(f"{seed} {epoch}").getrandbits(32)
