"""Batches of one epoch: random order, augmentation and conversion to floats, on the device."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples

# Batches


def num_batches(examples: Examples, batch_size: int) -> int:
    """Batches of an epoch. A last one of a single image is left out: batch norm cannot train on it."""
    full, rest = divmod(len(examples), batch_size)
    return full + (rest > 1)


def batches(
    examples: Examples,
    batch_size: int,
    *,
    augmentation: Augmentation,
    order: torch.Generator,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: (B, C, H, W) augmented float32 images in [0, 1] and (B,) labels, on their device.

    Args:
        examples: What to go through.
        batch_size: Images in a batch; the last one may be smaller.
        augmentation: Applied to each image by itself.
        order: Source of the order, on the CPU.
        generator: Source of the augmentation, on the examples' device.
    """
    positions = torch.randperm(len(examples), generator=order).to(examples.images.device)
    for chosen in positions.split(batch_size)[: num_batches(examples, batch_size)]:
        images, labels = examples.gather(chosen)
        yield to_float(augment(images, augmentation=augmentation, generator=generator)), labels


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255.0


def augment(images: Tensor, *, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crops and flips each image of a batch at random, all in one gather.

    Args:
        images: (N, C, H, W) uint8.
        augmentation: `padding` zeros on each side, from which an H×W window is cut; half the images mirrored if `flip`.
        generator: On the images' device.

    Returns:
        (N, C, H, W) uint8, in channels-last memory where anything was done.
    """
    if augmentation == Augmentation(padding=0, flip=False):
        return images
    count, _, height, width = images.shape
    device, padding = images.device, augmentation.padding
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), device=device, generator=generator)
    rows = offsets[0] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, -1)
    if augmentation.flip:
        mirrored = torch.randint(0, 2, (count, 1), device=device, generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + offsets[1]
    padded = F.pad(images, (padding,) * 4)
    which = torch.arange(count, device=device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
