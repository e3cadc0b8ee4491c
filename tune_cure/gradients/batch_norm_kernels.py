"""Triton kernels for batch norm's second derivatives are found here, and used only where they were seen to be right."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from tune_cure.gradients.batch_norm_formulas import Normalization, by_formula, per_channel
from tune_cure.utils.errors import first_line

_logger = logging.getLogger(__name__)

WITHOUT_KERNELS = "batch norm's second derivative goes without Triton, and is slower: %s"
MOST_ERROR = 2e-3
"""Largest error of kernels in use, in fp16 and relative to the norm: four times what rounding the results costs."""

SecondDerivatives = Callable[[Tensor, Tensor, Normalization, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Such as `batch_norm_triton.second_derivatives`."""


def find_kernels(images: Tensor) -> SecondDerivatives | None:
    """Return the Triton kernels for the second derivatives at these images (N, C, H, W).

    Returns:
        None on the CPU, for images that are not in channels_last, and where the kernels cannot be compiled or give
        wrong results on this GPU. The latter is tried once in a process, and a warning gives the reason.
    """
    if not images.is_cuda or not images.is_contiguous(memory_format=torch.channels_last):
        return None
    return tried_kernels(images.device)


@functools.cache
def tried_kernels(device: torch.device) -> SecondDerivatives | None:
    """Compile and try the Triton kernels on a device; None if that fails."""
    try:
        from tune_cure.gradients.batch_norm_triton import second_derivatives

        error = largest_error(second_derivatives, device)
    except Exception as raised:  # no Triton, no compiler, a driver too old: errors of any kind
        reason = first_line(raised)
    else:
        if error <= MOST_ERROR:
            return second_derivatives
        reason = f"its results are wrong on this GPU (relative error {error:.2g})"
    _logger.warning(WITHOUT_KERNELS, reason)
    return None


def largest_error(second_derivatives: SecondDerivatives, device: torch.device) -> float:
    """Return the largest relative error of the three derivatives of random fp16 images, against float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images, grad_output, direction = torch.randn(3, 4, 40, 9, 7, generator=generator).half()
    exact = images.double(), grad_output.double(), direction.double()
    weight = torch.randn(40, generator=generator)
    mean, inverse_std = exact[0].mean((0, 2, 3)), exact[0].var((0, 2, 3), correction=0).rsqrt()
    normalized = (exact[0] - per_channel(mean)) * per_channel(inverse_std)

    def sums(gradient: Tensor) -> list[Tensor]:
        return [(gradient * normalized).sum((0, 2, 3)), gradient.sum((0, 2, 3))]

    norm = Normalization(exact[0], weight.double(), mean, inverse_std)
    q, mean_v = (total / norm.channel_size for total in sums(exact[2]))
    to_grad_output = per_channel(norm.weight * inverse_std) * (
        exact[2] - per_channel(mean_v) - normalized * per_channel(q)
    )
    expected = to_grad_output, *by_formula(exact[2], exact[1], norm, sums(exact[1]), sums(exact[2]))

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device).contiguous(memory_format=torch.channels_last)

    there = [values.float().to(device) for values in (weight, mean, inverse_std, *sums(exact[1]))]
    moved_norm = Normalization(moved(images), *there[:3])
    found = second_derivatives(moved(direction), moved(grad_output), moved_norm, *there[3:])
    errors = [
        (ours.cpu().double() - theirs).norm() / theirs.norm() for ours, theirs in zip(found, expected, strict=True)
    ]
    return float(torch.stack(errors).max())  # NaN if one of them is
