"""Optimizers by name. To add one, write a function and add a line to `OPTIMIZERS`."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from tune_cure.utils.registry import Registry

Parameters = Iterable[nn.Parameter]


def sgd(
    parameters: Parameters, *, lr: float, weight_decay: float, momentum: float, nesterov: bool, fused: bool
) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum, Nesterov's on request; the weight decay is an L2 penalty."""
    optimizer = torch.optim.SGD(
        parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, fused=fused
    )
    if fused and momentum > 0:
        # The fused step allocates the buffer without initializing it, and a step that a GradScaler skips leaves it so.
        for parameter in optimizer.param_groups[0]["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adam(
    parameters: Parameters, *, lr: float, weight_decay: float, fused: bool, **_sgd_only: object
) -> torch.optim.Optimizer:
    """Return Adam; the weight decay is an L2 penalty."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def adamw(
    parameters: Parameters, *, lr: float, weight_decay: float, fused: bool, **_sgd_only: object
) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry(
    "optimizer", {"sgd": sgd, "adam": adam, "adamw": adamw}
)
