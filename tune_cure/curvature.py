"""The CURE penalty (Moosavi-Dezfooli et al. 2019, arXiv 1811.09716): how much the input gradient changes along z.

A direction is a function from (input gradient, h, generator) to the displacement z. To add one: write it, add a line
to `DIRECTIONS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tune_cure.gradients import evaluation_mode, input_gradient

Direction = Callable[[Tensor, float, torch.Generator | None], Tensor]


def classic(gradient: Tensor, h: float, generator: torch.Generator | None = None) -> Tensor:
    """z = h · sign(g) / ‖sign(g)‖₂ of each example (the paper's equation 6): (N, C, H, W), of L2 length h.

    An example whose gradient is exactly zero gets z = 0.
    """
    sign = gradient.sign()
    length = torch.linalg.vector_norm(sign, dim=(1, 2, 3), keepdim=True)
    z: Tensor = h * sign / length.clamp_min(1.0)
    return z


DIRECTIONS: dict[str, Direction] = {"classic": classic}


def cure_penalty(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    h: float,
    *,
    direction: str = "classic",
    generator: torch.Generator | None = None,
    loss_scale: float = 1.0,
) -> Tensor:
    """‖∇ₓℓ(x + z) − ∇ₓℓ(x)‖₂ of each example, differentiable with respect to the parameters.

    One gradient at x serves both for the direction z and for the difference. z is held constant when the penalty is
    differentiated; both gradients are not. Deviations from the paper's equation 5: the norm is not squared, and the
    factor 1/h² is left to lambda (both as in the authors' code); x + z is not clipped to [0, 1], since the penalty is
    a finite difference of the gradient field. Batch norm runs in evaluation mode and its statistics are left alone.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        h: L2 length of z in pixel units; on 3×32×32 images, 1.739 moves every pixel by 8/255.
        direction: A key of `DIRECTIONS`.
        generator: Source of randomness of the directions that need one.
        loss_scale: See `gradients.input_gradient`.

    Returns:
        (N,) penalties, before lambda. Not finite where an fp16 gradient overflowed.
    """
    with evaluation_mode(model):
        at_images = input_gradient(model, images, labels, create_graph=True, loss_scale=loss_scale)
        displaced = images + DIRECTIONS[direction](at_images.detach(), h, generator)
        at_displaced = input_gradient(model, displaced, labels, create_graph=True, loss_scale=loss_scale)
    penalty: Tensor = torch.linalg.vector_norm(at_displaced - at_images, dim=(1, 2, 3))
    return penalty
