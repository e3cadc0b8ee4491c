"""Context managers that set which statistics batch norm normalizes by, and restore the network's mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tune_cure.gradients.double_backward import sums_in_float32

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` into evaluation mode for the block, then restore each module's own mode.

    Modes are restored module by module, so that a layer that the caller has frozen on purpose stays frozen.
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
    """Enter `evaluation_mode`, but let batch norm normalize by the statistics of the batch, without recording them."""
    with evaluation_mode(model), _in_float32(_batch_norms(model)) as layers:
        recording = [layer for layer in layers if layer.track_running_stats]
        for layer in recording:
            layer.training, layer.track_running_stats = True, False
        try:
            yield
        finally:
            for layer in recording:
                layer.training, layer.track_running_stats = False, True


def mixes_examples(model: nn.Module) -> bool:
    """Return whether a batch norm of `model`, in its present mode, normalizes by the statistics of the batch."""
    return any(layer.training or layer.running_mean is None for layer in _batch_norms(model))


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Compute batch norm in float32 in the block, even where autocast hands it fp16 or bf16.

    The second derivative of batch norm contains the standard deviation of the batch to the power of −3, which
    overflows fp16 where a channel varies little. Batch norms that keep such numbers in float32 by themselves
    (`double_backward.sums_in_float32`) take their images as they are.
    """
    with _in_float32(_batch_norms(model)):
        yield


@contextmanager
def _in_float32(layers: list[BatchNorm]) -> Iterator[list[BatchNorm]]:
    hooks = [layer.register_forward_pre_hook(_to_float32) for layer in layers]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _batch_norms(model: nn.Module) -> list[BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, BATCH_NORMS)]


def _to_float32(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (images,) = inputs
    is_narrow = images.dtype in (torch.float16, torch.bfloat16)
    weight: Tensor | None = layer.weight  # type: ignore[assignment]
    return (images.float() if is_narrow and not sums_in_float32(images, weight) else images,)


STATISTICS = {"running": evaluation_mode, "batch": batch_statistics}
"""Statistics that batch norm normalizes by: `running` averages keep examples independent, `batch` uses the batch's."""
