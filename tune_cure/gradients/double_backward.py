"""Convolution, batch norm and ReLU whose second derivatives cost as little as their first.

A penalty on input gradients differentiates the network twice. PyTorch's second derivative of a convolution is a
convolution with the images as channels and a kernel of the size of the output, and its second derivative of batch norm
makes some thirty passes over the activations. Here the former is the weight gradient of an ordinary backward pass, and
the latter a linear combination of three tensors. Both are exact, and a network needs no change: see
`cheap_second_derivatives`.

`torch.ops.aten` holds torch's operators as its documentation lists them. They are called directly because
`torch.nn.functional` has no function for the backward pass of batch norm or ReLU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from tune_cure.gradients.convolution_gradients import Geometry, image_gradient, weight_gradient

_aten = torch.ops.aten
# Shared by all threads, not kept by thread: on CUDA, backward passes run in threads of their own.
_state = {"input gradients only": False}


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Compute no weight gradients in the block: backward passes go to the images alone.

    PyTorch's own operators see which gradients a backward pass needs. Functions written in Python do not, so they
    read this state.
    """
    before = _state["input gradients only"]
    _state["input gradients only"] = True
    try:
        yield
    finally:
        _state["input gradients only"] = before


class _Convolution(Function):
    """Convolution without bias: images (N, C, H, W) and weight (K, C / groups, R, S) to (N, K, H', W')."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.geometry = geometry
        result: Tensor = _aten.convolution(images, weight, None, *geometry)
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        if _state["input gradients only"]:
            return _ConvolutionImageGradient.apply(grad_output, weight, images, ctx.geometry), None, None
        needs_images, needs_weight, _ = ctx.needs_input_grad
        return (
            image_gradient(grad_output, images, weight, ctx.geometry) if needs_images else None,
            weight_gradient(grad_output, images, weight, ctx.geometry) if needs_weight else None,
            None,
        )


class _ConvolutionImageGradient(Function):
    """Gradient of a convolution with respect to its images: linear in `grad_output` and in the weight.

    In its backward pass, `direction` (N, C, H, W) is the gradient with respect to this gradient.
    """

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, weight: Tensor, images: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad_output, weight)
        ctx.geometry = geometry
        return image_gradient(grad_output, images, weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_output, weight = ctx.saved_tensors
        needs_grad_output, needs_weight, *_ = ctx.needs_input_grad
        return (
            _aten.convolution(direction, weight, None, *ctx.geometry) if needs_grad_output else None,
            weight_gradient(grad_output, direction, weight, ctx.geometry) if needs_weight else None,
            None,
            None,
        )


def convolution(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve images (N, C, H, W) with weight (K, C / groups, R, S), as `torch.nn.functional.conv2d` does."""
    device = images.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        images, weight, bias = images.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    pairs = [[size, size] if isinstance(size, int) else list(size) for size in (stride, padding, dilation)]
    geometry = (*pairs, False, [0, 0], groups)
    result: Tensor = _Convolution.apply(images, weight, geometry)
    return result if bias is None else result + bias.view(1, -1, 1, 1)


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
        result, mean, inverse_std = _aten.native_batch_norm(
            images, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(images, weight, mean, inverse_std)
        ctx.eps = eps
        return result  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse_std = ctx.saved_tensors
        if _state["input gradients only"]:
            grad_images = _BatchNormImageGradient.apply(grad_output, images, weight, mean, inverse_std, ctx.eps)
            return grad_images, *[None] * 6
        needed = list(ctx.needs_input_grad[:3])
        return *_batch_norm_backward(grad_output, images, weight, mean, inverse_std, ctx.eps, needed), *[None] * 4


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
        ctx: Any, grad_output: Tensor, images: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, eps: float
    ) -> Tensor:
        result, *sums_s = _batch_norm_backward(grad_output, images, weight, mean, inverse_std, eps, [True] * 3)
        ctx.save_for_backward(grad_output, images, weight, mean, inverse_std, *sums_s)
        ctx.eps = eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, images, weight, mean, r, *sums_s = ctx.saved_tensors
        to_grad_output, *sums_v = _batch_norm_backward(direction, images, weight, mean, r, ctx.eps, [True] * 3)
        count = images.numel() // images.shape[1]
        b, mean_s, q, mean_v = torch.stack([*sums_s, *sums_v]).div_(count)
        covariance = (direction * grad_output).mean((0, 2, 3)) - mean_v * mean_s
        factor = -weight * r.square()
        # x̂ is r(x − mean), so `to_images` is a linear combination of v, s and x, plus a constant per channel.
        by_v, by_s, by_x = factor * b, factor * q, factor * (covariance - 3 * b * q) * r
        constant = -_per_channel(by_v * mean_v + by_s * mean_s + by_x * mean)
        to_images = torch.addcmul(constant, direction, _per_channel(by_v))
        to_images.addcmul_(grad_output, _per_channel(by_s))
        to_images.addcmul_(images, _per_channel(by_x))
        return to_grad_output, to_images, r * count * (covariance - b * q), None, None, None


def _batch_norm_backward(
    grad_output: Tensor,
    images: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    eps: float,
    needed: list[bool],
) -> list[Tensor]:
    """Return the gradients with respect to images (N, C, H, W), weight (C,) and bias (C,), those that are `needed`."""
    return list(
        _aten.native_batch_norm_backward(grad_output, images, weight, None, None, mean, inverse_std, True, eps, needed)
    )


def _per_channel(values: Tensor) -> Tensor:
    """(C,) values as (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)


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
    factor = weight * torch.rsqrt(running_var + eps)
    shifted = torch.addcmul(_per_channel(bias - running_mean * factor), images, _per_channel(factor))
    return shifted.to(images.dtype)


class _ReLU(Function):
    """max(0, x) with no second derivative with respect to x; PyTorch's own adds a tensor of zeros for it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        result = images.relu()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        grad_images: Tensor = _ReLUImageGradient.apply(grad_output, result.detach())
        return grad_images


class _ReLUImageGradient(Function):
    """`grad_output` where the result is positive, else 0: linear in `grad_output`, constant in the result."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, result: Tensor) -> Tensor:
        ctx.save_for_backward(result)
        grad_images: Tensor = _aten.threshold_backward(grad_output, result, 0)
        return grad_images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None]:
        return _aten.threshold_backward(direction, *ctx.saved_tensors, 0), None


_CONV2D_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class _CheapSecondDerivatives(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            arguments = dict(zip(_CONV2D_ARGUMENTS, args, strict=False)) | kwargs
            if arguments["input"].dim() == 4 and not isinstance(arguments.get("padding"), str):
                return convolution(arguments.pop("input"), **arguments)
        if func is F.batch_norm and args[0].dim() == 4 and kwargs.get("weight") is not None:
            return batch_norm(*args, **kwargs)
        if func is F.relu and not kwargs.get("inplace"):
            result: Tensor = _ReLU.apply(args[0])
            return result
        return func(*args, **kwargs)


def cheap_second_derivatives() -> TorchFunctionMode:
    """Return a context in which convolutions, batch norms and ReLUs of images can be differentiated twice cheaply.

    First comes `torch.autograd.grad(…, images, create_graph=True)` inside `input_gradients_only`, then, at any time, a
    backward pass to the parameters.
    """
    return _CheapSecondDerivatives()
