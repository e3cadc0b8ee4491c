"""Types of a data set: where it comes from, how it is read and augmented, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cure.utils.errors import TuneCureError

if TYPE_CHECKING:
    from torch import Tensor

TEST_SEED = 0
"""Seed of the test set that is held out of a data set without one."""
MAX_VALIDATION = 5000
"""Most images that are held out by default where a data set names no number."""


class DataError(TuneCureError):
    """Data that cannot be found or used. The text says what was found, where, and what is allowed."""


class NotHereError(DataError):
    """Data that is not there, but can be downloaded."""


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, and random horizontal flip.

    Attributes:
        padding: Zeros on each side, in pixels.
        flip: Mirror half of the images.
    """

    padding: int
    flip: bool


@dataclass(frozen=True)
class DataSource:
    """A data set that is there or can be downloaded.

    Attributes:
        source: Origin in words, for reports.
        fingerprint: State of the files. The data is prepared anew when it changes.
        read: Function that reads the files. It returns `train_images` and `test_images`, (M, C, H, W) uint8,
            `train_labels` and `test_labels`, (M,) int64, and the names of the `classes`. C is equal in both, so are
            H and W unless images are resized. Without the entries of a test set, one is held out of the training
            images.
    """

    source: str
    fingerprint: str
    read: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Dataset:
    """An entry of `DATASETS`: how a data set is found, and what is used with it where the user says nothing.

    `data.validation` falls back to these defaults in searches, too. The others are those of a single training run: a
    search names its network and its radii itself.

    Attributes:
        find: Function of the folder, the side to resize images to (None: as they are) and whether a download is
            allowed. Returns where the data is; raises `DataError` where it is not.
        augmentation: Of the training images; None pads by an eighth of the side, and flips.
        validation: Number of training images to hold out; None is a tenth of them, at least one per class and at most
            5,000.
        network: Name of the network.
        epsilon: Radius of the training attack and of the evaluation in the L∞ norm, in pixel units.
        examples: Number of validation images to evaluate on.
    """

    find: Callable[[Path, int | None, bool], DataSource]
    augmentation: Augmentation | None = None
    validation: int | None = None
    network: str = "preact_resnet18"
    epsilon: float = 8 / 255
    examples: int = 1000

    def num_validation(self, num_images: int, num_classes: int) -> int:
        """Return the default number of images to hold out of `num_images` training images of `num_classes` classes."""
        if self.validation is not None:
            return self.validation
        return max(num_classes, min(num_images // 10, MAX_VALIDATION))

    def describe_defaults(self) -> str:
        """Return the defaults in words, for help texts and the documentation."""
        validation = "a tenth as" if self.validation is None else f"{self.validation:,}"
        radius = "8/255" if self.epsilon == 8 / 255 else f"{self.epsilon:g}"
        evaluated = f"at most {self.examples:,} of them evaluated"
        return f"{self.network}, epsilon {radius}, {validation} validation images, {evaluated}"


def stratified(labels: Tensor, count: int, seed: int, *, leave_one: bool = False) -> Tensor:
    """Return (count,) sorted positions in `labels` (N,), each class in its share.

    Shares are rounded by largest remainders. The seed alone decides which positions of a class are taken.

    Args:
        labels: Classes, from 0 on.
        count: Number of positions.
        seed: Seed of the draw.
        leave_one: Leave one position or more of each class that `labels` have; `count` must allow it.
    """
    import torch  # the defaults of a data set are asked for without its images

    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(labels)
    most = (sizes - 1).clamp_min(0) if leave_one else sizes
    assert count <= int(most.sum())
    shares = sizes.double() * count / len(labels)
    quotas = shares.floor().long().minimum(most)
    while missing := count - int(quotas.sum()):
        order = (quotas - shares).argsort(stable=True)
        quotas[order[(quotas < most)[order]][:missing]] += 1
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen).sort().values
