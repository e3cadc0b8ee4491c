"""Averages of a network's weights over training, evaluated in the place of the weights themselves."""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_avg_fn

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
        # One tensor after the other for swa: its function for many at once cannot average the whole-number buffers.
        rule = {"avg_fn": get_swa_avg_fn()} if kind == "swa" else {"multi_avg_fn": get_ema_multi_avg_fn(decay)}
        self.averaged = AveragedModel(model, use_buffers=True, **rule)

    def after_step(self, model: nn.Module, steps: int) -> None:
        """Takes in the weights of `model`, which has made so many steps."""
        if self.kind == "ema":
            self.averaged.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
            self.averaged.update_parameters(model)

    def after_epoch(self, model: nn.Module, fraction: float) -> None:
        """Takes in the weights of `model` after an epoch that ended when `fraction` of training was done."""
        if self.kind == "swa" and fraction > self.start:
            self.averaged.update_parameters(model)

    @property
    def model(self) -> nn.Module | None:
        """The network with the averaged weights; None as long as nothing was averaged."""
        return self.averaged.module if self.averaged.n_averaged > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return dict(self.averaged.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        self.averaged.load_state_dict(state)
