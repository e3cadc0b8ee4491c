"""Networks by name, with torch alone.

Each takes images in [0, 1] and normalizes them in its first layer, so that epsilon is in pixel units. An exported
network's folder has a copy of this file, which must therefore import nothing but torch and the standard library.

To add a network, write a function of (num_classes, in_channels, width) and add a line to `ARCHITECTURES`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalize(nn.Module):
    """Layer that computes (images − mean) / std per channel; both are buffers, saved with the weights."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class StridedPointwise(nn.Conv2d):
    """1×1 convolution without bias of every `stride`-th row and column.

    On a CPU these pixels are picked before the convolution, with the same result. oneDNN's weight gradient of a strided
    convolution writes past its memory with channels last and fewer than 16 channels, which kills the process (oneDNN
    issue 6035).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


class PreActBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016, arXiv 1603.05027): BN, ReLU, 3×3, BN, ReLU, 3×3, plus shortcut."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        changes_shape = stride != 1 or in_planes != planes
        self.shortcut = StridedPointwise(in_planes, planes, stride) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        total: Tensor = out + shortcut
        return total


class PreActResNet(nn.Module):
    """Pre-activation ResNet: a 3×3 stem, stages of blocks, BN, ReLU, mean over the pixels, linear.

    Each stage but the first halves the resolution.

    Args:
        blocks: Number of blocks in each stage.
        planes: Channels of each stage.
        stem: Channels of the first convolution.
        num_classes: Number of logits per image.
        in_channels: Channels of the images.
    """

    def __init__(
        self, blocks: Sequence[int], planes: Sequence[int], stem: int, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem, 3, 1, 1, bias=False)
        layers: list[nn.Module] = []
        width = stem
        for stage, (count, stage_planes) in enumerate(zip(blocks, planes, strict=True)):
            for index in range(count):
                layers.append(PreActBlock(width, stage_planes, 2 if stage > 0 and index == 0 else 1))
                width = stage_planes
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn(self.blocks(self.stem(x))))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _preact(blocks: int, num_classes: int, in_channels: int, width: int) -> nn.Module:
    planes = [width, 2 * width, 4 * width, 8 * width]
    return PreActResNet([blocks] * 4, planes, width, num_classes, in_channels)


def preact_resnet18(num_classes: int, in_channels: int, width: int = 64) -> nn.Module:
    """Build PreActResNet18 as in Wong et al. 2020: four stages of two blocks; width 64 has 11.17 M parameters."""
    return _preact(2, num_classes, in_channels, width)


def preact_resnet10(num_classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """Build four stages of one block, narrow by default: for CPUs."""
    return _preact(1, num_classes, in_channels, width)


def wide_resnet28_10(num_classes: int, in_channels: int, width: int = 160) -> nn.Module:
    """Build WRN-28-10 (Zagoruyko and Komodakis 2016, arXiv 1605.07146) without dropout; `width`: first stage."""
    return PreActResNet([4] * 3, [width, 2 * width, 4 * width], 16, num_classes, in_channels)


def small_cnn(num_classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """Build three 3×3 convolutions with batch norm (the last two of stride 2), mean, linear: for images near 8×8."""
    layers: list[nn.Module] = []
    channels = in_channels
    for planes, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers += [nn.Conv2d(channels, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU()]
        channels = planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "preact_resnet18": preact_resnet18,
    "preact_resnet10": preact_resnet10,
    "wide_resnet28_10": wide_resnet28_10,
    "small_cnn": small_cnn,
}


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    architectures: Mapping[str, Callable[..., nn.Module]] = ARCHITECTURES,
) -> nn.Sequential:
    """Build a network with fresh weights from torch's global random state.

    Args:
        name: A key of `architectures`.
        num_classes: Number of logits per image.
        in_channels: Channels of the images.
        width: Channels of the first stage; None is the network's own default.
        mean: Mean of each channel, subtracted in the first layer; None is 0.5 each.
        std: Standard deviation of each channel, divided by in the first layer; None is 0.25 each.
        architectures: Functions of (num_classes, in_channels, width) by name.

    Returns:
        A network from (N, C, H, W) images in [0, 1] to (N, num_classes) logits.
    """
    sizes: dict[str, Any] = {} if width is None else {"width": width}
    return nn.Sequential(
        Normalize([0.5] * in_channels if mean is None else mean, [0.25] * in_channels if std is None else std),
        architectures[name](num_classes, in_channels, **sizes),
    )
