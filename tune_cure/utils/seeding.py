"""torch's global random state: networks draw their first weights from it, and dropout its masks."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_global_state(seed: int, device: torch.device) -> Iterator[None]:
    """Within, the global states of the CPU and of `device` follow from `seed`; afterwards they are as they were."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every device's as well
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of 32 bits, which is what the CPU's generator takes, for an epoch of the run of `seed`."""
    return random.Random(f"{seed} {epoch}").getrandbits(32)
