"""Penalties of your own. A direction says along which way CURE compares gradients: copy it into
tune_cure/regularizers/cure.py and add

    "diagonal": diagonal,

to `DIRECTIONS` there; then `delta: diagonal`. What is no such difference goes into `OTHER_PENALTIES` instead, as

    "input_gradient": input_gradient_norm,
"""

from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import lengths, unit
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.regularizers.cure import Point


def diagonal(point: Point) -> Tensor:
    """A corner of the ball, drawn at random, of L2 length h: (N, C, H, W)."""
    noise = torch.rand(point.images.shape, generator=point.generator, device=point.images.device)
    return point.h * unit((noise - 0.5).sign().to(point.images.dtype))


def input_gradient_norm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    statistics: str = "running",
    loss_scale: float = 1.0,
    **_: Any,
) -> Tensor:
    """‖∇ₓℓ(x)‖₂ of each example: (N,), differentiable with respect to the parameters."""
    with STATISTICS[statistics](model):
        return lengths(input_gradient(model, images, labels, create_graph=True, loss_scale=loss_scale))
