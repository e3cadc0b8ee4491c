"""Automatic mixed precision for training with a gradient penalty: data types, loss scales, exact float32."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

INPUT_LOSS_SCALE = 2.0**8
"""Loss scale of fp16 input gradients: keeps the smallest from underflow, and the largest far from overflow."""


def amp_dtype(mode: str, device: torch.device) -> torch.dtype | None:
    """Return the data type of autocast for an `amp` setting, or None for no autocast.

    `auto` is fp16 on CUDA and no autocast on the CPU. fp16 has 3 more bits of mantissa than bf16, so the error of a
    difference of two input gradients is about three times smaller.

    Args:
        mode: `auto`, `bf16`, `fp16`, `tf32` or `off`.
        device: Device that the network runs on.
    """
    if mode == "auto":
        mode = "fp16" if device.type == "cuda" else "off"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": None, "off": None}[mode]


def precision_name(mode: str, device: torch.device) -> str:
    """Return what a training with this `amp` setting computes in, such as `float16 on cuda`, for messages and checks.

    Args:
        mode: See `amp_dtype`.
        device: Device that the network runs on.
    """
    if mode == "tf32" and device.type == "cuda":
        return "tf32 on cuda"
    return f"{str(amp_dtype(mode, device) or torch.float32).removeprefix('torch.')} on {device.type}"


class Autocast(nn.Module):
    """Network whose forward pass runs under autocast, and whose logits are float32.

    Every loss and every gradient with respect to the images is therefore float32, too. On CUDA the weights of
    convolutions and linear layers are converted before the pass, all in one launch, as are their gradients. Autocast
    would convert each weight in a launch of its own.

    Args:
        model: Network from (N, C, H, W) images to (N, K) logits.
        device_type: `cuda` or `cpu`.
        dtype: Data type of autocast.
    """

    def __init__(self, model: nn.Module, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.device_type, self.dtype = model, device_type, dtype
        self.converted = weights_of_products(model) if device_type == "cuda" else {}

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device_type, self.dtype):
            if not self.converted:
                logits: Tensor = self.model(images)
            else:
                weights = dict(zip(self.converted, _Converted.apply(self.dtype, *self.converted.values()), strict=True))
                logits = torch.func.functional_call(self.model, weights, images, tie_weights=False)
        return logits.float()


def weights_of_products(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return weights and biases of the layers of `model` that autocast computes in low precision, by their names."""
    forwards = (nn.Conv2d.forward, nn.Linear.forward)  # a subclass may do with its weight what it likes
    return {
        f"{path}.{name}" if path else name: parameter
        for path, module in model.named_modules()
        if type(module).forward in forwards
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dtype == torch.float32
    }


class _Converted(Function):
    """Tensors of one data type, converted to another, in one launch where torch can."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        converted = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        copy_all(converted, list(tensors))
        return tuple(converted)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        known = [grad for grad in grads if grad is not None]
        converted = iter(_Converted.apply(ctx.dtype, *known) if known else ())
        return None, *[None if grad is None else next(converted) for grad in grads]


def low_precision(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> tuple[nn.Module, float]:
    """Return `model` with its forward pass in `dtype`, and the loss scale for gradients with respect to its images.

    Args:
        model: Network from (N, C, H, W) images to (N, K) logits.
        device: Device that it runs on.
        dtype: Data type of autocast; None returns `model` itself and a loss scale of 1.
    """
    if dtype is None:
        return model, 1.0
    return Autocast(model, device.type, dtype), INPUT_LOSS_SCALE if dtype == torch.float16 else 1.0


class RunningStatistics:
    """Floating-point buffers of a network, such as the running averages of batch norm.

    An fp16 forward pass that overflows would leave them infinite for good, so the trainer restores them afterwards.
    They are copied and restored as one flat tensor: a handful of operations a step, however many layers there are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.sizes = [buffer.numel() for buffer in self.buffers]

    def copy(self) -> Tensor:
        """Return a copy of all buffers, flattened and concatenated: (M,)."""
        return torch.cat([buffer.flatten() for buffer in self.buffers]) if self.buffers else torch.empty(0)

    def restore_unless(self, finite: Tensor, before: Tensor) -> None:
        """Restore the values `before` unless the step since then was `finite`, without making the host wait.

        Args:
            finite: () boolean on the buffers' device.
            before: (M,) values that `copy` returned.
        """
        if self.buffers:
            parts = torch.where(finite, self.copy(), before).split(self.sizes)
            shaped = [part.view_as(buffer) for part, buffer in zip(parts, self.buffers, strict=True)]
            copy_all(self.buffers, shaped)


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into its target, in one launch where torch can.

    Args:
        targets: Tensors to overwrite, on one device.
        sources: As many tensors, each of its target's shape.
    """
    _together("_foreach_copy_", Tensor.copy_, targets, sources)


def add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to those that the parameters have, in one launch where torch can.

    Args:
        parameters: On one device.
        gradients: As many, each of its parameter's shape; None for a parameter that the loss does not depend on.
    """
    pairs = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            pairs.append((parameter.grad, gradient))
    _together("_foreach_add_", Tensor.add_, [total for total, _ in pairs], [summand for _, summand in pairs])


def _together(name: str, alone: Callable[..., Any], targets: list[Tensor], sources: list[Tensor]) -> None:
    """Change each target by its source, by torch's function `name` or, in a torch without it, `alone` one by one.

    The functions of many tensors have no public names. Both ways give the same values.
    """
    if not targets:
        return
    together = getattr(torch, name, None)
    if together is not None:
        together(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        alone(target, source)


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in float32 in the block, not in TF32 or bfloat16, whatever the process is set to."""
    with _float32_as(cuda="ieee"):
        yield


@contextmanager
def tf32_products() -> Iterator[None]:
    """Round the factors of float32 products to TF32 on CUDA in the block; the CPU computes in float32."""
    with _float32_as(cuda="tf32"):
        yield


@contextmanager
def training_float32(mode: str, device: torch.device) -> Iterator[None]:
    """Compute float32 in the block as an `amp` setting says; without one, convolutions on CUDA would be in TF32.

    `off` is float32 itself and `tf32` rounds the factors of products to TF32 on CUDA. The other settings and the CPU
    are left as the process is set.

    Args:
        mode: See `amp_dtype`.
        device: Device that the network runs on.
    """
    if device.type != "cuda" or mode not in ("tf32", "off"):
        yield
        return
    with _float32_as(cuda="tf32" if mode == "tf32" else "ieee"):
        yield


@contextmanager
def _float32_as(*, cuda: str) -> Iterator[None]:
    """Compute float32 on CUDA as `ieee` or as `tf32` in the block, and on the CPU as float32."""
    backends: Any = torch.backends
    operations = {
        backends.cuda.matmul: cuda,
        backends.cudnn.conv: cuda,
        backends.cudnn.rnn: cuda,
        backends.mkldnn.matmul: "ieee",
        backends.mkldnn.conv: "ieee",
        backends.mkldnn.rnn: "ieee",
    }

    def set_precisions(precisions: Sequence[str]) -> None:
        # torch has an old and a new way to set this, and refuses to compute where the two differ.
        backends.cuda.matmul.allow_tf32 = precisions[0] == "tf32"
        backends.cudnn.allow_tf32 = precisions[1] == "tf32"
        for operation, precision in zip(operations, precisions, strict=True):
            operation.fp32_precision = precision

    before, by_old_way = [operation.fp32_precision for operation in operations], _precision_by_old_way()
    set_precisions(list(operations.values()))
    try:
        yield
    finally:
        set_precisions(before)
        if by_old_way == "medium":  # `set_precisions` leaves "high", which contradicts bfloat16 on the CPU
            torch.set_float32_matmul_precision(by_old_way)


def _precision_by_old_way() -> str | None:
    """Return `torch.get_float32_matmul_precision`; None where torch refuses it, because both ways were mixed."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
