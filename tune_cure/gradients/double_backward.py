"""Convolution, batch norm and ReLU whose second derivatives cost as little as their first.

A penalty on input gradients differentiates the network twice. PyTorch's second derivative of a convolution is a
convolution with the images as channels and a kernel of the size of the output, and its second derivative of batch norm
makes some thirty passes over the activations. Here the former is the weight gradient of an ordinary backward pass, and
the latter a linear combination of three tensors. Both are exact, and a network needs no change: see
`cheap_second_derivatives`.

`torch.ops.aten` holds torch's operators as its documentation lists them. They are called directly because
`torch.nn.functional` has no function for the backward pass of ReLU.
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

from tune_cure.gradients.backward_scope import skips_weight_gradients
from tune_cure.gradients.batch_norm import batch_norm, prefers_few_launches
from tune_cure.gradients.convolution_gradients import Geometry, image_gradient, weight_gradient

_aten = torch.ops.aten


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
        if skips_weight_gradients():
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


_entered = {"first": 0, "second": 0}
"""How many contexts of `cheap_first_derivatives` and `cheap_second_derivatives` are entered."""


class _CheapSecondDerivatives(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            arguments = dict(zip(_CONV2D_ARGUMENTS, args, strict=False)) | kwargs
            if arguments["input"].dim() == 4 and not isinstance(arguments.get("padding"), str):
                return convolution(arguments.pop("input"), **arguments)
        if func is F.batch_norm and _is_batch_norm_of_images(args, kwargs):
            return batch_norm(*args, **kwargs)
        if func is F.relu and not kwargs.get("inplace"):
            result: Tensor = _ReLU.apply(args[0])
            return result
        return func(*args, **kwargs)


class _CheapFirstDerivatives(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and _is_batch_norm_of_images(args, kwargs) and not kwargs["training"]:
            return batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _is_batch_norm_of_images(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return args[0].dim() == 4 and kwargs.get("weight") is not None


@contextmanager
def cheap_second_derivatives() -> Iterator[None]:
    """Make convolutions, batch norms and ReLUs of images in the block differentiable twice cheaply.

    First comes `torch.autograd.grad(…, images, create_graph=True)` inside `input_gradients_only`, then, at any time, a
    backward pass to the parameters.
    """
    with _counted("second"), _CheapSecondDerivatives():
        yield


@contextmanager
def cheap_first_derivatives(images: Tensor) -> Iterator[None]:
    """Run a forward pass from `images` in the block, whose gradients are not differentiated again.

    On a GPU, the gradients of batch norm by running statistics keep the memory format of the images. On the CPU they do
    so in any case, and PyTorch's own operators are used.
    """
    if not prefers_few_launches(images):
        yield
        return
    with _counted("first"), _CheapFirstDerivatives():
        yield


@contextmanager
def _counted(kind: str) -> Iterator[None]:
    _entered[kind] += 1
    try:
        yield
    finally:
        _entered[kind] -= 1


def sums_in_float32(images: Tensor, weight: Tensor | None) -> bool:
    """Return whether a batch norm of images in fp16 or bf16, called now, keeps large numbers in float32 by itself.

    It does so on a GPU within `cheap_second_derivatives` if it has a weight. Where its gradient is not differentiated
    again, no such number arises.
    """
    if not prefers_few_launches(images):
        return False
    handled = images.dim() == 4 and weight is not None
    return _entered["first"] > 0 or (handled and _entered["second"] > 0)
