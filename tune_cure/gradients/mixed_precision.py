"""Automatic mixed precision for training with a gradient penalty: what runs in which data type, and loss scales."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

INPUT_LOSS_SCALE = 2.0**8  # of fp16 input gradients: lifts the smallest out of underflow, far from overflow


def amp_dtype(mode: str, device: torch.device) -> torch.dtype | None:
    """The data type of autocast for an `amp` setting; None without autocast.

    `auto` is fp16 on CUDA: the difference of two input gradients loses about three times fewer digits in fp16 than
    in bf16, which has 3 bits less of mantissa.
    """
    if mode == "auto":
        mode = "fp16" if device.type == "cuda" else "off"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[mode]


class Autocast(nn.Module):
    """`model` with its forward pass alone under autocast; its logits, and so every loss and gradient, are float32."""

    def __init__(self, model: nn.Module, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.device_type, self.dtype = model, device_type, dtype

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device_type, self.dtype):
            logits: Tensor = self.model(images)
        return logits.float()


def low_precision(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> tuple[nn.Module, float]:
    """`model` to be run in `dtype` (None: as it is), and the `loss_scale` for gradients with respect to its images."""
    if dtype is None:
        return model, 1.0
    return Autocast(model, device.type, dtype), INPUT_LOSS_SCALE if dtype == torch.float16 else 1.0


class RunningStatistics:
    """The floating-point buffers of a network, which an fp16 forward pass that overflows leaves infinite for good.

    They are kept and put back as one flat tensor: a handful of operations a step, however many layers there are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.sizes = [buffer.numel() for buffer in self.buffers]

    def copy(self) -> Tensor:
        """All of them, one after another: (M,)."""
        return torch.cat([buffer.flatten() for buffer in self.buffers]) if self.buffers else torch.empty(0)

    def put_back_unless(self, finite: Tensor, before: Tensor) -> None:
        """Gives them the values of `before`, a `copy`, unless the step since then was `finite`. Nothing waits."""
        if self.buffers:
            parts = torch.where(finite, self.copy(), before).split(self.sizes)
            shaped = [part.view_as(buffer) for part, buffer in zip(parts, self.buffers, strict=True)]
            torch._foreach_copy_(self.buffers, shaped)


@contextmanager
def full_float32() -> Iterator[None]:
    """Within, float32 is computed in float32, not in TF32 or bfloat16, whatever the process is set to."""
    of: Any = torch.backends
    parts = of.cuda.matmul, of.cudnn.conv, of.cudnn.rnn, of.mkldnn.matmul, of.mkldnn.conv, of.mkldnn.rnn

    def put(precisions: Sequence[str]) -> None:
        # torch has an old and a new way to set this, and refuses to compute where the two differ.
        of.cuda.matmul.allow_tf32, of.cudnn.allow_tf32 = (precision == "tf32" for precision in precisions[:2])
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision

    before = [part.fp32_precision for part in parts]
    put(["ieee"] * len(parts))
    try:
        yield
    finally:
        put(before)
