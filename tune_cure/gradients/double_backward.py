"""Convolution, batch norm and ReLU whose second derivatives are as cheap as their first.

A penalty on input gradients differentiates the network twice. There, PyTorch takes a convolution's weight gradient by
a convolution with the images as channels and a kernel of the size of the output, and puts batch norm's together from
some thirty passes over the activations. Here, the former is the weight gradient that every backward pass knows, and the
latter a linear combination of three tensors. All are exact; a network needs no change: see `cheap_second_derivatives`.
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
_state = {"images only": False}  # not by thread: on CUDA, backward passes run in threads of their own


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Within, a backward pass is to the images alone: convolutions leave out the gradients of their weights.

    PyTorch's own operations find that out by themselves; those written in Python are not told.
    """
    before = _state["images only"]
    _state["images only"] = True
    try:
        yield
    finally:
        _state["images only"] = before


class _Convolution(Function):
    """Of images (N, C, H, W) with weights; no bias."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.geometry = geometry
        result: Tensor = _aten.convolution(images, weight, None, *geometry)
        return result

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        if _state["images only"]:
            return _ConvolutionToImages.apply(slope, weight, images, ctx.geometry), None, None
        given = slope, images, weight, ctx.geometry
        wanted_images, wanted_weight, _ = ctx.needs_input_grad
        return (
            image_gradient(*given) if wanted_images else None,
            weight_gradient(*given) if wanted_weight else None,
            None,
        )


class _ConvolutionToImages(Function):
    """The gradient of a convolution's images: linear in the slope (N, K, H', W') of its output, and in the weights."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, weight: Tensor, images: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(slope, weight)
        ctx.geometry = geometry
        return image_gradient(slope, images, weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        of_output, weight = ctx.saved_tensors
        wanted_slope, wanted_weight, *_ = ctx.needs_input_grad
        return (
            _aten.convolution(slope, weight, None, *ctx.geometry) if wanted_slope else None,
            weight_gradient(of_output, slope, weight, ctx.geometry) if wanted_weight else None,
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
    """As `torch.nn.functional.conv2d` of images (N, C, H, W)."""
    device = images.device.type
    if torch.is_autocast_enabled(device):
        low = torch.get_autocast_dtype(device)
        images, weight, bias = images.to(low), weight.to(low), None if bias is None else bias.to(low)
    pairs = [[of, of] if isinstance(of, int) else list(of) for of in (stride, padding, dilation)]
    geometry = (*pairs, False, [0, 0], groups)
    result: Tensor = _Convolution.apply(images, weight, geometry)
    return result if bias is None else result + bias.view(1, -1, 1, 1)


class _BatchNorm(Function):
    """By the statistics of the batch, which are recorded where there is something to record them in."""

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
        result, mean, scale = _aten.native_batch_norm(
            images, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(images, weight, mean, scale)
        ctx.eps = eps
        return result  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, scale = ctx.saved_tensors
        if _state["images only"]:
            to_images = _BatchNormToImages.apply(slope, images, weight, mean, scale, ctx.eps)
            return to_images, *[None] * 6
        given = slope, images, weight, None, None, mean, scale, True, ctx.eps
        return *_aten.native_batch_norm_backward(*given, list(ctx.needs_input_grad[:3])), *[None] * 4


class _BatchNormToImages(Function):
    """The gradient of a batch norm's images; how it depends on the slope of the output, the images and the weights.

    With means over all but the channels, x̂ the normalised images, r = 1/std, s the slope and v the direction in which
    the gradient of the images, γr(s − s̄ − x̂·mean(s x̂)), is differentiated:

        to s:  γr(v − v̄ − x̂q)
        to x:  −γr²(b(v − v̄) + q(s − s̄) + (mean(vs) − v̄s̄ − 3bq)x̂)
        to γ:  rM(mean(vs) − v̄s̄ − bq)

    where q = mean(v x̂), b = mean(s x̂) and M is the number of elements that a mean is over. What goes to s is the same
    gradient once more, of v in the place of s; and with such a gradient of the images come those of weight and bias: Mb
    and Ms̄ with that of s, Mq and Mv̄ with that of v.
    """

    @staticmethod
    def forward(
        ctx: Any, slope: Tensor, images: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
    ) -> Tensor:
        given = images, weight, None, None, mean, scale, True, eps, [True] * 3
        result, *sums_s = _aten.native_batch_norm_backward(slope, *given)
        ctx.save_for_backward(slope, images, weight, mean, scale, *sums_s)
        ctx.eps = eps
        return result  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        slope, images, weight, mean, scale, *sums_s = ctx.saved_tensors
        given = images, weight, None, None, mean, scale, True, ctx.eps, [True] * 3
        to_slope, *sums_v = _aten.native_batch_norm_backward(direction, *given)
        count = images.numel() // images.shape[1]
        b, mean_s, q, mean_v = torch.stack([*sums_s, *sums_v]).div_(count)
        covariance = (direction * slope).mean((0, 2, 3)) - mean_v * mean_s
        second = -weight * scale.square()
        of_v, of_s, of_x = second * b, second * q, second * (covariance - 3 * b * q) * scale  # x̂ is r(x − mean)
        to_images = torch.addcmul(
            -_of_channels(of_v * mean_v + of_s * mean_s + of_x * mean), direction, _of_channels(of_v)
        )
        to_images.addcmul_(slope, _of_channels(of_s))
        to_images.addcmul_(images, _of_channels(of_x))
        return to_slope, to_images, scale * count * (covariance - b * q), None, None, None


def _of_channels(values: Tensor) -> Tensor:
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
    """As `torch.nn.functional.batch_norm` of images (N, C, H, W)."""
    if training:
        result: Tensor = _BatchNorm.apply(images, weight, bias, running_mean, running_var, momentum, eps)
        return result
    assert running_mean is not None and running_var is not None
    factor = weight * torch.rsqrt(running_var + eps)
    shifted = torch.addcmul(_of_channels(bias - running_mean * factor), images, _of_channels(factor))
    return shifted.to(images.dtype)


class _ReLU(Function):
    """max(0, x), whose second derivative at the images is nothing; PyTorch's own is a tensor of zeros, to be added."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        result = images.relu()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        to_images: Tensor = _ReLUToImages.apply(slope, result.detach())
        return to_images


class _ReLUToImages(Function):
    """The slope where the result is positive: linear in the slope, constant in the result."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, result: Tensor) -> Tensor:
        ctx.save_for_backward(result)
        to_images: Tensor = _aten.threshold_backward(slope, result, 0)
        return to_images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None]:
        return _aten.threshold_backward(direction, *ctx.saved_tensors, 0), None


_OF_CONV2D = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class _Cheaply(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            given = dict(zip(_OF_CONV2D, args, strict=False)) | kwargs
            if given["input"].dim() == 4 and not isinstance(given.get("padding"), str):
                return convolution(given.pop("input"), **given)
        if func is F.batch_norm and args[0].dim() == 4 and kwargs.get("weight") is not None:
            return batch_norm(*args, **kwargs)
        if func is F.relu and not kwargs.get("inplace"):
            result: Tensor = _ReLU.apply(args[0])
            return result
        return func(*args, **kwargs)


def cheap_second_derivatives() -> TorchFunctionMode:
    """A context: convolutions and batch norms of images, computed within, can be differentiated twice cheaply.

    That is, by `torch.autograd.grad(…, images, create_graph=True)` within `image_gradients_only`, and by a backward
    pass to the parameters later.
    """
    return _Cheaply()
