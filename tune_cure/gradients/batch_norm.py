"""Batch norm whose first and second derivatives take few passes over the activations, and few launches on a GPU.

Shapes: images, their gradients and `direction` (N, C, H, W); all else is (C,). The sums over a channel are taken in the
data type of the weight: images in fp16 or bf16 beside a float32 weight, as autocast has them, are summed in float32.

`torch.ops.aten` holds torch's operators. They are called directly because `torch.nn.functional` has no function for the
backward pass of batch norm. `_batch_norm_impl_index` is the operator that `torch.nn.functional.batch_norm` consists of:
it chooses between cuDNN and torch's own kernels, and tells its backward pass what it chose.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tune_cure.gradients.backward_scope import skips_weight_gradients

_aten = torch.ops.aten


def prefers_few_launches(images: Tensor) -> bool:
    """Return whether the time of small operations is that of their launch: on a GPU."""
    return images.is_cuda


class _BatchNorm(Function):
    """Batch norm by the statistics of the batch, which it records in the running averages where there are any."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        result, mean, inverse_std, reserve, kernel = _aten._batch_norm_impl_index(
            images, weight, bias, running_mean, running_var, True, momentum, eps, torch.backends.cudnn.enabled
        )
        ctx.save_for_backward(images, weight, mean, inverse_std, reserve)
        ctx.kernel, ctx.eps = kernel, eps
        return result  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse_std, reserve = ctx.saved_tensors
        saved = images, weight, mean, inverse_std, reserve
        if skips_weight_gradients():
            return _BatchNormImageGradient.apply(grad_output, *saved, ctx.kernel, ctx.eps), *[None] * 6
        return *_gradients(grad_output, *saved, ctx.kernel, ctx.eps, list(ctx.needs_input_grad[:3])), *[None] * 4


class _BatchNormImageGradient(Function):
    """Gradient of batch norm with respect to its images, and the derivatives of that gradient.

    Symbols: x̂ the normalized images, γ the weight, r = 1/std, s the gradient with respect to the output
    (`grad_output`), M the number of elements of a channel; a bar and mean() average over all dimensions but the
    channels. The gradient with respect to the images is γr(s − s̄ − x̂·mean(s x̂)). In the backward pass v
    (`direction`) is the gradient with respect to it. With q = mean(v x̂) and b = mean(s x̂), its derivatives are

        to s:  γr(v − v̄ − x̂q)
        to x:  −γr²(b(v − v̄) + q(s − s̄) + (mean(vs) − v̄s̄ − 3bq)x̂)
        to γ:  rM(mean(vs) − v̄s̄ − bq)

    The first is the gradient with respect to the images once more, with v in the place of s. The same call returns the
    sums over a channel that the others need, as gradients of weight and bias: Mb and Ms̄ for s, Mq and Mv̄ for v.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Tensor,
        images: Tensor,
        weight: Tensor,
        mean: Tensor,
        inverse_std: Tensor,
        reserve: Tensor,
        kernel: int,
        eps: float,
    ) -> Tensor:
        saved = images, weight, mean, inverse_std, reserve
        result, *sums_s = _gradients(grad_output, *saved, kernel, eps, [True] * 3)
        kept = [result] if prefers_few_launches(images) else []
        ctx.save_for_backward(grad_output, *saved, *sums_s, *kept)
        ctx.kernel, ctx.eps = kernel, eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, images, weight, mean, r, reserve, sum_b, sum_s, *kept = ctx.saved_tensors
        saved = images, weight, mean, r, reserve
        to_grad_output, *sums_v = _gradients(direction, *saved, ctx.kernel, ctx.eps, [True] * 3)
        unneeded = [None] * 5
        if kept:
            sums, results = (sum_b, sum_s, sums_v[0]), (kept[0], to_grad_output)
            to_images, to_weight = _second_derivatives_by_results(
                direction, grad_output, images, weight, mean, r, sums, results
            )
            return to_grad_output, to_images, to_weight, *unneeded
        count = images.numel() // images.shape[1]
        b, mean_s, q, mean_v = torch.stack([sum_b, sum_s, *sums_v]).div_(count)
        covariance = (direction * grad_output).mean((0, 2, 3)) - mean_v * mean_s
        factor = -weight * r.square()
        # x̂ is r(x − mean), so `to_images` is a linear combination of v, s and x, plus a constant per channel.
        by_v, by_s, by_x = factor * b, factor * q, factor * (covariance - 3 * b * q) * r
        constant = -_per_channel(by_v * mean_v + by_s * mean_s + by_x * mean)
        to_images = torch.addcmul(constant, direction, _per_channel(by_v))
        to_images.addcmul_(grad_output, _per_channel(by_s))
        to_images.addcmul_(images, _per_channel(by_x))
        return to_grad_output, to_images, r * count * (covariance - b * q), *unneeded


def _second_derivatives_by_results(
    direction: Tensor,
    grad_output: Tensor,
    images: Tensor,
    weight: Tensor,
    mean: Tensor,
    r: Tensor,
    sums: tuple[Tensor, Tensor, Tensor],
    results: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of `_BatchNormImageGradient` to x and γ in few launches (its symbols; shapes above).

    With G(s) = γr(s − s̄ − x̂b), the gradient with respect to the images, and w = rM(mean(vs) − v̄s̄ − bq), the derivative
    to γ, the one to x is −(rMb·G(v) + rMq·G(s) + γr²w(x − mean)) / M. The coefficients and the sum are in the data type
    of the weight, and only the result is in that of the images: r³ overflows fp16 where a channel varies little.

    Args:
        direction: v.
        grad_output: s.
        images: x.
        weight: γ.
        mean: Mean of the images.
        r: 1/std of the images.
        sums: Mb, Ms̄ and Mq.
        results: G(s) and G(v).
    """
    sum_b, sum_s, sum_q = sums
    count = images.numel() // images.shape[1]
    by_v, by_s, weight_r = torch.stack([sum_b, sum_q, weight]).mul_(r)
    covariance = _sum_of_products(direction, grad_output, sum_s / count, r)
    to_weight = torch.addcmul(covariance, by_v, sum_q, value=-1 / count)
    by_x = weight_r.mul(r).mul_(to_weight)
    total = _per_channel(by_x.mul(mean).div_(count))
    total = torch.addcmul(total, results[1], _per_channel(by_v), value=-1 / count)
    total.addcmul_(results[0], _per_channel(by_s), value=-1 / count)
    to_images = total if total.dtype == images.dtype else torch.empty_like(images)
    torch.addcmul(total, images, _per_channel(by_x), value=-1 / count, out=to_images)
    return to_images, to_weight


def _sum_of_products(a: Tensor, b: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return the (C,) sums of a·(b − center)·scale over all dimensions but the channels (a and b: (N, C, H, W))."""
    if a.is_cuda and not torch.is_grad_enabled():
        # The first step of SyncBatchNorm's backward pass: one kernel, with sums in the data type of `scale`.
        sums: Tensor = torch.batch_norm_backward_reduce(a, b, center, scale, scale, True, True, True)[2]
        return sums
    return (a * (b - _per_channel(center))).sum((0, 2, 3)) * scale


def _gradients(
    grad_output: Tensor,
    images: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    reserve: Tensor,
    kernel: int,
    eps: float,
    needed: list[bool],
) -> tuple[Tensor, ...]:
    """Return the gradients with respect to images (N, C, H, W), weight (C,) and bias (C,), those that are `needed`.

    Args:
        grad_output: (N, C, H, W) gradient with respect to the output.
        images: (N, C, H, W).
        weight: (C,).
        mean: (C,) of the images.
        inverse_std: (C,) 1/std of the images.
        reserve: What cuDNN's forward pass wrote for its backward pass; else empty.
        kernel: Which kernels made the forward pass.
        eps: Of the batch norm.
        needed: For images, weight and bias.
    """
    statistics = None, None, mean, inverse_std
    result: tuple[Tensor, ...] = _aten._batch_norm_impl_index_backward(
        kernel, images, grad_output, weight, *statistics, True, eps, needed, reserve
    )
    return result


class _FrozenBatchNorm(Function):
    """Batch norm by the running statistics, whose gradients keep the memory format of the images.

    On a GPU, PyTorch's own backward pass returns NCHW, so that each convolution before it copies its gradient back.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(images, weight, running_mean, torch.rsqrt(running_var + eps))
        return F.batch_norm(images, running_mean, running_var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse_std = ctx.saved_tensors
        needs_images, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        all_needed = not skips_weight_gradients()
        return (
            _FrozenImageGradient.apply(grad_output, weight, inverse_std) if needs_images else None,
            _sum_of_products(grad_output, images, mean, inverse_std) if needs_weight and all_needed else None,
            grad_output.sum((0, 2, 3), dtype=weight.dtype) if needs_bias and all_needed else None,
            None,
            None,
            None,
        )


class _FrozenImageGradient(Function):
    """`grad_output` × weight × 1/std, by channel: linear in `grad_output` and in the weight."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, weight: Tensor, inverse_std: Tensor) -> Tensor:
        ctx.save_for_backward(grad_output, weight, inverse_std)
        factor = _per_channel(weight * inverse_std)
        return torch.mul(grad_output, factor, out=torch.empty_like(grad_output))

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_output, weight, inverse_std = ctx.saved_tensors
        needs_grad_output, needs_weight, _ = ctx.needs_input_grad
        to_weight = None
        if needs_weight:
            to_weight = _sum_of_products(direction, grad_output, torch.zeros_like(inverse_std), inverse_std)
        to_grad_output = _FrozenImageGradient.apply(direction, weight, inverse_std) if needs_grad_output else None
        return to_grad_output, to_weight, None


def _per_channel(values: Tensor) -> Tensor:
    """(C,) values as (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)


def frozen_batch_norm(
    images: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, eps: float
) -> Tensor:
    """Normalize images (N, C, H, W) by the running statistics; all else is (C,). Differentiable any number of times."""
    result: Tensor = _FrozenBatchNorm.apply(images, weight, bias, running_mean, running_var, eps)
    return result


def batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalize images (N, C, H, W) by channel, as `torch.nn.functional.batch_norm` does; all else is (C,)."""
    if training:
        result: Tensor = _BatchNorm.apply(images, weight, bias, running_mean, running_var, momentum, eps)
        return result
    assert running_mean is not None and running_var is not None
    if prefers_few_launches(images):
        return frozen_batch_norm(images, weight, bias, running_mean, running_var, eps)
    factor = weight * torch.rsqrt(running_var + eps)
    shifted = torch.addcmul(_per_channel(bias - running_mean * factor), images, _per_channel(factor))
    return shifted.to(images.dtype)
