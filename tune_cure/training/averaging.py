"""Averages of a network's weights over training, evaluated in the place of the weights themselves."""

import copy
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

AVERAGINGS = ("none", "ema", "swa")


class WeightAverage:
    """An average of the weights and batch-norm statistics of `model`.

    `ema` is exponential: updated after every step, with a decay that grows from 2/11 to `decay` as steps are made, so
    that the random initial weights are soon forgotten. `swa` is the plain mean of the weights after each epoch
    (Izmailov et al. 2018, arXiv 1803.05407); deviation: batch-norm statistics are averaged too, not measured anew.

    Args:
        kind: `ema` or `swa`.
        model: Whose weights; it is copied.
        decay: Of `ema`: the share of the average that a step keeps.
        start: Of `swa`: the fraction of training after which epochs count.
    """

    def __init__(self, kind: str, model: nn.Module, *, decay: float, start: float) -> None:
        self.kind, self.decay, self.start = kind, decay, start
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.count = 0  # how often weights were taken in

    def after_step(self, model: nn.Module, steps: int) -> None:
        """Takes in the weights of `model`, which has made so many steps; does not wait for the device."""
        if self.kind == "ema":
            self._take_in(model, keep=min(self.decay, (1 + steps) / (10 + steps)) if self.count else 0.0)

    def after_epoch(self, model: nn.Module, fraction: float) -> None:
        """Takes in the weights of `model` after an epoch that ended when `fraction` of training was done."""
        if self.kind == "swa" and fraction > self.start:
            self._take_in(model, keep=self.count / (self.count + 1))

    def _take_in(self, model: nn.Module, keep: float) -> None:
        ours, theirs = list(self.averaged.state_dict().values()), list(model.state_dict().values())
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
        get_ema_multi_avg_fn(keep)([a for a, _ in pairs], [b for _, b in pairs], None)
        for a, b in zip(ours, theirs, strict=True):
            if not a.is_floating_point():  # batch norm's counts of batches
                a.copy_(b)
        self.count += 1

    @property
    def model(self) -> nn.Module | None:
        """The network with the averaged weights; None as long as nothing was averaged."""
        return self.averaged if self.count else None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"weights": self.averaged.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        self.averaged.load_state_dict(state["weights"])
        self.count = state["count"]
