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
