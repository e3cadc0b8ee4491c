"""Batches of one epoch: random order, augmentation and conversion to float, on the device."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples

MIN_BATCH = 8
"""Least number of images in a last batch, and of penalized images in a batch; `batch_size` where that is lower.

The step of a small batch counts as much as that of a full one. Batch norm's statistics of a few images, and the
gradients through them, are mostly noise, so that such a step can ruin the weights.
"""


def num_batches(count: int, batch_size: int) -> int:
    """Return the number of batches of an epoch on `count` images.

    A last batch of fewer than `MIN_BATCH` images is left out. Where it is the only one it stays, unless it is a single
    image, on which batch norm cannot train.
    """
    full, rest = divmod(count, batch_size)
    return full + (rest >= (min(batch_size, MIN_BATCH) if full else 2))


def num_trained(count: int, batch_size: int) -> int:
    """Return how many of `count` images are in the batches of an epoch."""
    return min(count, batch_size * num_batches(count, batch_size))


class Batch(NamedTuple):
    """A batch of training images.

    Attributes:
        images: (B, C, H, W) augmented float32 images in [0, 1].
        labels: (B,) labels.
        positions: (B,) numbers of the images among the examples, from 0 on, which are the same in every epoch.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor


class BatchStream:
    """The batches of a training run, epoch by epoch, on the examples' device.

    An epoch has `num_batches` steps. Each batch comes `replays` times in a row, with one and the same augmentation, so
    a pass over the images takes `replays` epochs. A pass goes on in the next epoch, and so do the replays of a batch.

    Args:
        examples: The images and labels.
        batch_size: Images in a batch; the last one of a pass may be smaller (see `num_batches`).
        augmentation: Applied to each image independently.
        order: Random generator of the order, on the CPU.
        generator: Random generator of the augmentation, on the examples' device.
        cutout: Side of the square that `cut_out` fills, in pixels; 0 fills none.
        mean: Mean of each of the C channels, in [0, 1]; needed for `cutout`.
        replays: Steps in a row on each batch.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        augmentation: Augmentation,
        order: torch.Generator,
        generator: torch.Generator,
        cutout: int = 0,
        mean: Sequence[float] = (),
        replays: int = 1,
    ) -> None:
        self.examples, self.batch_size, self.augmentation = examples, batch_size, augmentation
        self.order, self.generator, self.cutout, self.mean = order, generator, cutout, mean
        self.replays = replays
        self._waiting: list[Tensor] = []  # positions of the later batches of this pass
        self._batch: Batch | None = None
        self._uses = 0  # steps that the batch still comes in

    def epoch(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch."""
        for _ in range(num_batches(len(self.examples), self.batch_size)):
            if self._batch is None or not self._uses:
                self._batch, self._uses = self._next(), self.replays
            self._uses -= 1
            yield self._batch

    def _next(self) -> Batch:
        if not self._waiting:
            positions = torch.randperm(len(self.examples), generator=self.order).to(self.examples.images.device)
            count = num_batches(len(self.examples), self.batch_size)
            self._waiting = list(positions.split(self.batch_size)[:count])
        positions = self._waiting.pop(0)
        pixels, labels = self.examples.gather(positions)
        images = to_float(augment(pixels, augmentation=self.augmentation, generator=self.generator))
        if self.cutout:
            images = cut_out(images, self.cutout, self.mean, generator=self.generator)
        return Batch(images, labels, positions)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch continues with: the rest of a pass, and a batch that is to be replayed."""
        batch = [] if self._batch is None or not self._uses else list(self._batch)
        return {"waiting": self._waiting, "batch": batch, "uses": self._uses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            ValueError: It holds no batches of these images.
        """
        device = self.examples.images.device
        waiting = [self._checked(positions).to(device) for positions in state["waiting"]]
        batch = Batch(*(part.to(device) for part in state["batch"])) if state["batch"] else None
        if batch is not None and not len(batch.images) == len(batch.labels) == len(self._checked(batch.positions)):
            raise ValueError("a batch that is to be replayed has other numbers of images, labels and positions")
        self._waiting, self._batch, self._uses = waiting, batch, state["uses"]

    def _checked(self, positions: Tensor) -> Tensor:
        """Return positions (B,) if they are those of images."""
        is_right = positions.dtype == torch.int64 and positions.dim() == 1
        if not is_right or not bool(((positions >= 0) & (positions < len(self.examples))).all()):
            raise ValueError("the rest of a pass over the images is no list of their numbers")
        return positions


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


def cut_out(images: Tensor, side: int, mean: Sequence[float], *, generator: torch.Generator) -> Tensor:
    """Fill a square of each image with the mean, where the network sees nothing (cutout).

    DeVries and Taylor 2017 (arXiv 1708.04552): the center of the square is a uniform pixel of the image, so the square
    may reach over the border. Their images are normalized, and their squares are 0, which is the mean.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        side: Side of the square, in pixels.
        mean: Mean of each of the C channels.
        generator: Random generator on the images' device.

    Returns:
        (N, C, H, W) images; those that were given stay as they were.
    """
    count, _, height, width = images.shape

    def covered(size: int) -> Tensor:  # (N, size): the rows or columns of the square
        center = torch.randint(0, size, (count, 1), device=images.device, generator=generator)
        distance = torch.arange(size, device=images.device) - (center - side // 2)
        return (distance >= 0) & (distance < side)

    inside = covered(height)[:, None, :, None] & covered(width)[:, None, None, :]
    return torch.where(inside, images.new_tensor(mean).view(1, -1, 1, 1), images)
