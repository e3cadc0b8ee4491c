"""Batches of one epoch: random order, augmentation and conversion to float, on the device."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples


def num_batches(examples: Examples, batch_size: int) -> int:
    """Return the number of batches of an epoch, which leaves out a last batch of one image.

    Batch norm cannot train on a single image.
    """
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
    """Yield the batches of one epoch in random order, on the examples' device.

    Args:
        examples: The images and labels.
        batch_size: Images in a batch; the last one may be smaller.
        augmentation: Applied to each image independently.
        order: Random generator of the order, on the CPU.
        generator: Random generator of the augmentation, on the examples' device.

    Yields:
        (B, C, H, W) augmented float32 images in [0, 1], and (B,) labels.
    """
    positions = torch.randperm(len(examples), generator=order).to(examples.images.device)
    for chosen in positions.split(batch_size)[: num_batches(examples, batch_size)]:
        images, labels = examples.gather(chosen)
        yield to_float(augment(images, augmentation=augmentation, generator=generator)), labels


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [0, 1]."""
    return images.float() / 255.0


def augment(images: Tensor, *, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and flip each image of a batch at random, all in one gather.

    Args:
        images: (N, C, H, W) uint8.
        augmentation: Padding and flip. The crop is an H×W window of the padded image.
        generator: Random generator on the images' device.

    Returns:
        (N, C, H, W) uint8, in channels-last memory unless `augmentation` does nothing.
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
    index = torch.arange(count, device=device)[:, None, None]
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
