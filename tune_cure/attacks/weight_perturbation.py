"""The attack on the weights: adversarial weight perturbation (Wu, Xia and Wang 2020, arXiv 2004.05884)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tune_cure.gradients.mixed_precision import copy_all


def perturbed_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are perturbed: those of more than one dimension, which spares biases and norms."""
    return [parameter for parameter in model.parameters() if parameter.dim() > 1 and parameter.requires_grad]


@contextmanager
def perturbed(weights: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], gamma: float) -> Iterator[None]:
    """Add γ · ‖w‖₂ · g / ‖g‖₂ to each weight in the block, layer by layer, and restore the weights after it.

    Wu, Xia and Wang 2020 (arXiv 2004.05884), with one step of ascent. The gradients of the block are those at the
    perturbed weights, and the optimizer takes its step from the restored ones. Deviation: in the authors' code weight
    decay acts on the perturbed weights.

    Args:
        weights: The layers' weights.
        gradients: Gradients of the loss that is ascended, multiplied by one positive number; None where the loss does
            not depend on a weight. A layer whose gradient is zero or not finite is not perturbed.
        gamma: Length of the perturbation relative to the layer's weight.
    """
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is None:
                continue
            length = torch.linalg.vector_norm(gradient)
            usable = length.isfinite() & (length > 0)
            factor = torch.where(usable, gamma * torch.linalg.vector_norm(weight) / length, 0.0)
            weight.add_(torch.where(usable, gradient, 0.0) * factor)
    try:
        yield
    finally:
        with torch.no_grad():
            copy_all(list(weights), kept)
