"""The two gradients of a convolution, of images (N, C, H, W) and without bias, each where it is fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor

Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""Stride, padding, dilation, transposed (never), output padding (none) and groups, as `torch.ops.aten` takes them."""

_aten = torch.ops.aten
_SLOW_ON = "AVX2"  # the one instruction set on which `as_product` was measured: benchmarks/cpu.py
_MANY_WEIGHTS = 2**20
_FEW_PIXELS = 64


def image_gradient(slope: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the images; `slope` (N, K, H', W') is that of the output, and of `images` the sizes count."""
    result: Tensor = _aten.convolution_backward(slope, images, weight, None, *geometry, [True, False, False])[0]
    return result


def weight_gradient(slope: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the weights; `slope` (N, K, H', W') is that of the output, and of `weight` the sizes count."""
    if product_is_faster(slope, images, weight, geometry):
        return as_product(slope, images, weight, geometry)
    result: Tensor = _aten.convolution_backward(slope, images, weight, None, *geometry, [False, True, False])[1]
    return result


def product_is_faster(slope: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """On AVX2, oneDNN's weight gradient of many weights that see few pixels takes half again as long as it might."""
    return (
        weight.numel() >= _MANY_WEIGHTS
        and slope.shape[2] * slope.shape[3] <= _FEW_PIXELS
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == _SLOW_ON
        and geometry[2:] == ([1, 1], False, [0, 0], 1)
        and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (slope, images, weight))
    )


def as_product(slope: Tensor, images: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """`weight_gradient`, undilated and ungrouped, as a matrix product of the slopes and all that the weights saw."""
    (down, right), (above, left), *_ = geometry
    outputs, _, height, width = weight.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, left, left, above, above))
    windows = padded.unfold(1, height, down).unfold(2, width, right)  # (N, H', W', C, height, width)
    seen = windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
    product = slope.permute(0, 2, 3, 1).flatten(0, 2).t() @ seen
    return product.view(outputs, height, width, -1).permute(0, 3, 1, 2)
