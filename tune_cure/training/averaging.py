"""Averages of a network's weights over training, evaluated in the place of the weights themselves."""

import copy
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Average of the weights and batch-norm statistics of a network.

    `ema` is an exponential average, updated after every step. It begins with the weights after the first step. Its
    decay then grows from 3/12 to `decay` with the number of steps, so that early weights are soon forgotten. `swa` is
    the plain mean of the weights after each epoch (Izmailov et al. 2018, arXiv 1803.05407). Deviation: batch-norm
    statistics are averaged too, not measured again.

    Args:
        kind: `ema` or `swa`.
        model: The network; it is copied.
        decay: For `ema`: the share of the average that a step keeps.
        start: For `swa`: the fraction of training after which epochs count.
    """

    def __init__(self, kind: str, model: nn.Module, *, decay: float, start: float) -> None:
        self.kind, self.decay, self.start = kind, decay, start
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.count = 0  # number of updates

    def after_step(self, model: nn.Module, steps: int) -> None:
        """Add the weights of `model` after its `steps`-th step to the average; does not wait for the device."""
        if self.kind == "ema":
            self._update(model, keep=min(self.decay, (1 + steps) / (10 + steps)) if self.count else 0.0)

    def after_epoch(self, model: nn.Module, fraction: float) -> None:
        """Add the weights of `model` after an epoch that ended when `fraction` of training was done."""
        if self.kind == "swa" and fraction > self.start:
            self._update(model, keep=self.count / (self.count + 1))

    def _update(self, model: nn.Module, keep: float) -> None:
        tensors = zip(self.averaged.state_dict().values(), model.state_dict().values(), strict=True)
        # The state lists a weight once for each layer that has it, and it is to move once.
        pairs = list({(a.data_ptr(), a.shape): (a, b) for a, b in tensors}.values())
        floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        get_ema_multi_avg_fn(keep)([a for a, _ in floats], [b for _, b in floats], None)
        for a, b in pairs:
            if not a.is_floating_point():  # batch norm's counts of batches
                a.copy_(b)
        self.count += 1

    @property
    def model(self) -> nn.Module | None:
        """The network with the averaged weights; None before the first update."""
        return self.averaged if self.count else None

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`."""
        return {"weights": self.averaged.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.averaged.load_state_dict(state["weights"])
        self.count = state["count"]
