"""Networks by name, with torch alone.

Each takes images in [0, 1] and normalizes them in its first layer, so that epsilon is in pixel units. An exported
network's folder has a copy of this file, which must therefore import nothing but torch and the standard library.

To add a network, write a function of (num_classes, in_channels, width), and add a line to `ARCHITECTURES` and one to
`MODELS` in registry.py.
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


def wide_resnet34_10(num_classes: int, in_channels: int, width: int = 160) -> nn.Module:
    """Build WRN-34-10 (Zagoruyko and Komodakis 2016, arXiv 1605.07146) without dropout; `width`: first stage."""
    return PreActResNet([5] * 3, [width, 2 * width, 4 * width], 16, num_classes, in_channels)


class BasicBlock(nn.Module):
    """Residual block (He et al. 2015, arXiv 1512.03385): 3×3, BN, ReLU, 3×3, BN, plus shortcut, ReLU."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(StridedPointwise(in_planes, planes, stride), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for small images: a 3×3 stem, BN, ReLU, four stages of two blocks, mean over the pixels, linear.

    Each stage but the first halves the resolution.

    Args:
        width: Channels of the first stage; each later stage has twice those of the one before.
        num_classes: Number of logits per image.
        in_channels: Channels of the images.
    """

    def __init__(self, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        planes = width
        for stage in range(4):
            for index in range(2):
                layers.append(BasicBlock(planes, width << stage, 2 if stage > 0 and index == 0 else 1))
                planes = width << stage
        self.blocks = nn.Sequential(*layers)
        self.linear = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu(self.bn(self.stem(x))))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def resnet18(num_classes: int, in_channels: int, width: int = 64) -> nn.Module:
    """Build ResNet-18 with a 3×3 stem, as most papers on CIFAR-10 do; width 64 has 11.17 M parameters."""
    return ResNet(width, num_classes, in_channels)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block of N sequences of T tokens, (N, T, D): attention, then a hidden layer of 4D.

    The attention is written out, because torch's fused kernels have no second derivative.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inputs(self.norm1(x)).chunk(3, dim=2)
        )
        weights = (queries @ keys.transpose(2, 3) * queries.shape[3] ** -0.5).softmax(dim=3)
        x = x + self.outputs((weights @ values).transpose(1, 2).flatten(2))
        total: Tensor = x + self.hidden(self.norm2(x))
        return total


class VisionTransformer(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) for small images of any size.

    As in Beyer et al. 2022 (arXiv 2205.01580) the positions are sines and cosines, without parameters, and the head
    takes the mean of all tokens.

    Args:
        depth: Number of blocks.
        width: Numbers in a token.
        num_classes: Number of logits per image.
        in_channels: Channels of the images.
        patch: Side of a patch, in pixels. Images are padded with zeros to a multiple.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int, patch: int = 4) -> None:
        super().__init__()
        heads = next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
        self.patch = patch
        self.stem = nn.Conv2d(in_channels, width, patch, patch)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        tokens = self.stem(F.pad(x, (0, -width % self.patch, 0, -height % self.patch)))
        tokens = tokens + _positions(tokens)
        logits: Tensor = self.linear(self.norm(self.blocks(tokens.flatten(2).transpose(1, 2)).mean(dim=1)))
        return logits


def _positions(tokens: Tensor) -> Tensor:
    """Return (D, H, W) sines and cosines of the rows and of the columns of (N, D, H, W) tokens, in their data type.

    Angles are in float32 at least: in bfloat16 those of far rows would be wrong by a tenth.
    """
    _, width, rows, columns = tokens.shape
    count = -(-width // 4)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    rates = 10000.0 ** (-torch.arange(count, device=tokens.device, dtype=dtype) / max(1, count - 1))
    along = [torch.arange(side, device=tokens.device)[:, None] * rates for side in (rows, columns)]
    row, column = (torch.cat([angles.sin(), angles.cos()], dim=1).T for angles in along)
    grid = torch.cat([row[:, :, None].expand(-1, -1, columns), column[:, None, :].expand(-1, rows, -1)])
    return grid[:width].to(tokens.dtype)


def small_vit(num_classes: int, in_channels: int, width: int = 192) -> nn.Module:
    """Build a vision transformer of 6 blocks on patches of 4×4; width 192 has 2.7 M parameters."""
    return VisionTransformer(6, width, num_classes, in_channels)


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
    "resnet18": resnet18,
    "wide_resnet28_10": wide_resnet28_10,
    "wide_resnet34_10": wide_resnet34_10,
    "small_vit": small_vit,
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
