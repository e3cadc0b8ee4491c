"""Optimizers by name. To add one, write a function and add a line to `OPTIMIZERS`.

torch is imported when an optimizer is made, so that reading a YAML file does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tune_cure.utils.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def decay_groups(model: nn.Module, *, decay_vectors: bool) -> Parameters:
    """Return the parameters of `model` for an optimizer, in groups where some are spared from weight decay.

    Args:
        model: The network.
        decay_vectors: Weight decay acts on all parameters. Otherwise it spares those of one dimension: weights and
            biases of batch norm, and other biases (Goyal et al. 2017, arXiv 1706.02677, section 5.3).
    """
    if decay_vectors:
        return model.parameters()
    parameters = list(model.parameters())
    decayed: dict[str, Any] = {"params": [parameter for parameter in parameters if parameter.dim() > 1]}
    spared = {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0}
    return [decayed, spared]


def sgd(
    parameters: Parameters, *, lr: float, weight_decay: float, momentum: float, nesterov: bool, fused: bool
) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum, Nesterov's on request; the weight decay is an L2 penalty."""
    import torch

    optimizer = torch.optim.SGD(
        parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, fused=fused
    )
    if fused and momentum > 0:
        # The fused step allocates the buffer without initializing it, and a step that a GradScaler skips leaves it so.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adam(
    parameters: Parameters, *, lr: float, weight_decay: float, fused: bool, **_sgd_only: object
) -> torch.optim.Optimizer:
    """Return Adam; the weight decay is an L2 penalty."""
    import torch

    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def adamw(
    parameters: Parameters, *, lr: float, weight_decay: float, fused: bool, **_sgd_only: object
) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay."""
    import torch

    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters; where it is a tensor, the tensor stays and gets the value."""
    import torch

    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def keep_rate_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Make the learning rate a tensor, and have everything else stay on the device, as a CUDA graph requires.

    A graph reads the tensor when it is replayed. It would repeat a number for ever.
    """
    import torch

    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        if "capturable" in group:
            group["capturable"] = True


OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry(
    "optimizer", {"sgd": sgd, "adam": adam, "adamw": adamw}
)
