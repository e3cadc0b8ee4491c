"""The two gradients of a 2-D convolution without bias, each computed in the way that is fastest.

Shapes: images (N, C, H, W), weight (K, C / groups, R, S), output and `grad_output` (N, K, H', W').

`torch.ops.aten` holds torch's operators as its documentation lists them. They are called directly because
`torch.nn.functional` offers no gradient of one operand alone: `convolution_backward` takes a mask of what to compute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""Stride, padding, dilation, transposed (always False), output padding (always 0), groups: the order of aten."""

_aten = torch.ops.aten
_SLOW_CAPABILITY = "AVX2"  # the one instruction set on which `as_product` was measured: benchmarks/cpu.py
_MANY_WEIGHTS = 2**20
_FEW_PIXELS = 64


def image_gradient(grad_output: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the (N, C, H, W) gradient with respect to the images.

    Args:
        grad_output: (N, K, H', W') gradient with respect to the output.
        images: (N, C, H, W); their size counts, not their values.
        weight: (K, C / groups, R, S).
        geometry: Of the convolution.
    """
    gradients = _aten.convolution_backward(grad_output, images, weight, None, *geometry, [True, False, False])
    result: Tensor = gradients[0]
    return result


def weight_gradient(grad_output: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the (K, C / groups, R, S) gradient with respect to the weight.

    Args:
        grad_output: (N, K, H', W') gradient with respect to the output.
        images: (N, C, H, W).
        weight: (K, C / groups, R, S); its size counts, not its values.
        geometry: Of the convolution.
    """
    if product_is_faster(grad_output, images, weight, geometry):
        return as_product(grad_output, images, weight, geometry)
    gradients = _aten.convolution_backward(grad_output, images, weight, None, *geometry, [False, True, False])
    result: Tensor = gradients[1]
    return result


def product_is_faster(grad_output: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Return whether `as_product` beats oneDNN's weight gradient (shapes as for `weight_gradient`).

    On AVX2, oneDNN takes half again as long as the matrix product where many weights see few pixels.
    """
    return (
        weight.numel() >= _MANY_WEIGHTS
        and grad_output.shape[2] * grad_output.shape[3] <= _FEW_PIXELS
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == _SLOW_CAPABILITY
        and geometry[2:] == ([1, 1], False, [0, 0], 1)
        and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (grad_output, images, weight))
    )


def as_product(grad_output: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient with respect to the weight as one matrix product, as `weight_gradient` does.

    The convolution must have dilation 1 and one group. With every window of the images as a row of P, and the
    gradient at that window's output as a row of G, the weight gradient is GᵀP.
    """
    (stride_rows, stride_columns), (pad_rows, pad_columns), *_ = geometry
    num_outputs, _, height, width = weight.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, pad_columns, pad_columns, pad_rows, pad_rows))
    windows = padded.unfold(1, height, stride_rows).unfold(2, width, stride_columns)  # (N, H', W', C, R, S)
    patches = windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)  # (N H' W', R S C)
    product = grad_output.permute(0, 2, 3, 1).flatten(0, 2).t() @ patches  # (K, R S C)
    return product.view(num_outputs, height, width, -1).permute(0, 3, 1, 2)
