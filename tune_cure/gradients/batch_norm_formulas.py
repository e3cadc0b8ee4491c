"""The second derivatives of batch norm by the statistics of the batch, as functions of plain tensors.

Symbols: x the images, x̂ the normalized images, γ the weight, r = 1/std, s the gradient with respect to the output
(`grad_output`), M the number of elements of a channel; a bar and mean() average over all dimensions but the channels.
With b = mean(s x̂), the gradient with respect to the images is G(s) = γr(s − s̄ − x̂b). In its backward pass v
(`direction`) is the gradient with respect to it. With q = mean(v x̂), the derivatives of G(s) are

    to s:  γr(v − v̄ − x̂q)
    to x:  −γr²(b(v − v̄) + q(s − s̄) + (mean(vs) − v̄s̄ − 3bq)x̂)
    to γ:  rM(mean(vs) − v̄s̄ − bq)

The first is G(v). Whoever computes it by the backward pass of batch norm gets sums over a channel as gradients of
weight and bias: Mq and Mv̄ for v, as Mb and Ms̄ for s.

Shapes: images, `grad_output` and `direction` are (N, C, H, W); all else is (C,). Sums over a channel and coefficients
are in the data type of the weight: images in fp16 or bf16 beside a float32 weight are summed in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Normalization(NamedTuple):
    """A forward pass of batch norm.

    Attributes:
        images: x, (N, C, H, W).
        weight: γ, (C,).
        mean: (C,) of the images.
        inverse_std: r, (C,).
    """

    images: Tensor
    weight: Tensor
    mean: Tensor
    inverse_std: Tensor

    @property
    def channel_size(self) -> int:
        """M, the number of elements of a channel."""
        return self.images.numel() // self.images.shape[1]


def by_formula(
    direction: Tensor, grad_output: Tensor, norm: Normalization, sums_s: list[Tensor], sums_v: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of G(s) to x and γ, by the formulas above.

    Args:
        direction: v.
        grad_output: s.
        norm: The forward pass.
        sums_s: Mb and Ms̄.
        sums_v: Mq and Mv̄.
    """
    images, weight, mean, r = norm
    b, mean_s, q, mean_v = torch.stack([*sums_s, *sums_v]).div_(norm.channel_size)
    covariance = (direction * grad_output).mean((0, 2, 3)) - mean_v * mean_s
    factor = -weight * r.square()
    # x̂ is r(x − mean), so `to_images` is a linear combination of v, s and x, plus a constant per channel.
    by_v, by_s, by_x = factor * b, factor * q, factor * (covariance - 3 * b * q) * r
    constant = -per_channel(by_v * mean_v + by_s * mean_s + by_x * mean)
    to_images = torch.addcmul(constant, direction, per_channel(by_v))
    to_images.addcmul_(grad_output, per_channel(by_s))
    to_images.addcmul_(images, per_channel(by_x))
    return to_images, r * norm.channel_size * (covariance - b * q)


def by_results(
    direction: Tensor,
    grad_output: Tensor,
    norm: Normalization,
    sums: tuple[Tensor, Tensor, Tensor],
    results: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of G(s) to x and γ in few launches, from results that are in memory.

    With w = rM(mean(vs) − v̄s̄ − bq), the derivative to γ, the one to x is
    −(rMb·G(v) + rMq·G(s) + γr²w(x − mean)) / M. The coefficients and the sum are in the data type of the weight, and
    only the result is in that of the images: r³ overflows fp16 where a channel varies little.

    Args:
        direction: v.
        grad_output: s.
        norm: The forward pass.
        sums: Mb, Ms̄ and Mq.
        results: G(s) and G(v).
    """
    images, weight, mean, r = norm
    sum_b, sum_s, sum_q = sums
    count = norm.channel_size
    by_v, by_s, weight_r = torch.stack([sum_b, sum_q, weight]).mul_(r)
    covariance = sum_of_products(direction, grad_output, sum_s / count, r)
    to_weight = torch.addcmul(covariance, by_v, sum_q, value=-1 / count)
    by_x = weight_r.mul(r).mul_(to_weight)
    total = per_channel(by_x.mul(mean).div_(count))
    total = torch.addcmul(total, results[1], per_channel(by_v), value=-1 / count)
    total.addcmul_(results[0], per_channel(by_s), value=-1 / count)
    to_images = total if total.dtype == images.dtype else torch.empty_like(images)
    torch.addcmul(total, images, per_channel(by_x), value=-1 / count, out=to_images)
    return to_images, to_weight


def sum_of_products(a: Tensor, b: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return the (C,) sums of a·(b − center)·scale over all dimensions but the channels (a and b: (N, C, H, W))."""
    if a.is_cuda and not torch.is_grad_enabled():
        # The first step of SyncBatchNorm's backward pass: one kernel, with sums in the data type of `scale`.
        sums: Tensor = torch.batch_norm_backward_reduce(a, b, center, scale, scale, True, True, True)[2]
        return sums
    return (a * (b - per_channel(center))).sum((0, 2, 3)) * scale


def per_channel(values: Tensor) -> Tensor:
    """(C,) values as (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)
