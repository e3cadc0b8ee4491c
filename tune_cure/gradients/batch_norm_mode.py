"""Context managers that set which statistics batch norm normalises by, and restore the network's mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Runs the block with every module of `model` in evaluation mode, then restores each module's own mode.

    Restored module by module, so that a layer that the caller had frozen on purpose stays frozen.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Like `evaluation_mode`, but batch norm normalises by the statistics of the batch; it does not record them."""
    with evaluation_mode(model), _in_float32(_batch_norms(model)) as layers:
        recording = [layer for layer in layers if layer.track_running_stats]
        for layer in recording:
            layer.training, layer.track_running_stats = True, False
        try:
            yield
        finally:
            for layer in recording:
                layer.training, layer.track_running_stats = False, True


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Under autocast, batch norm works in float32 in the block, whatever it is given.

    Its second derivative has the standard deviation of the batch to the power of −3, which overflows fp16 where a
    channel varies little.
    """
    with _in_float32(_batch_norms(model)):
        yield


@contextmanager
def _in_float32(layers: list[_BatchNorm]) -> Iterator[list[_BatchNorm]]:
    hooks = [layer.register_forward_pre_hook(_widened) for layer in layers]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def _widened(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float() if inputs[0].dtype in (torch.float16, torch.bfloat16) else inputs[0],)


STATISTICS = {"running": evaluation_mode, "batch": batch_statistics}
"""What batch norm normalises by: the running averages, which keep examples apart, or the batch's own statistics."""
