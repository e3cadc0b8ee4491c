"""Data sets as uint8 tensors on the device: split, and batched there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from tune_cure.datasets import DATASETS, TEST_SEED, Augmentation, DataError, prepared, stratified
from tune_cure.schema import MAX_SEED, Schema, one_of
from tune_cure.words import shown

DEFAULT_ROOT = "~/.cache/tune_cure"
MAX_PATH = 4000  # characters; systems take a little more


def _anchored(root: str) -> str:
    """`root`, absolute unless it begins with ~: the processes of trials work in folders of their own."""
    half = any("\ud800" <= character <= "\udfff" for character in root)  # of a pair: in no file's name
    if half or "\0" in root or len(root) > MAX_PATH:
        raise ValueError(f"a folder is needed, but found {shown(root)}")
    try:
        Path(root).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{shown(root)} begins with the home of somebody who is not known here") from error
    return root if root.startswith("~") else os.path.abspath(root)


class DataSpec(Schema):
    """Which data, from where, and how it is split."""

    dataset: Annotated[str, one_of(DATASETS)] = Field(description="The data set.")
    root: Annotated[str, AfterValidator(_anchored)] = Field(
        default=DEFAULT_ROOT, description="Folder of its files, or to download it into."
    )
    validation: int = Field(default=5000, ge=1, description="Training images held out, stratified, to judge on.")
    split_seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Which images these are.")
    train_examples: int | None = Field(default=None, ge=2, description="Train on so many of the others; all if absent.")
    image_size: int | None = Field(
        default=None, ge=4, le=1024, description="Resize images to this side, in pixels; as they are if absent."
    )

    @property
    def folder(self) -> Path:
        """`root` on the machine at hand."""
        return Path(self.root).expanduser()


def is_default(root: str) -> bool:
    """Whether a folder is the one that data is downloaded into unless the user names another, or lies in it."""
    inside = os.path.realpath(Path(root).expanduser())
    return Path(inside).is_relative_to(os.path.realpath(Path(DEFAULT_ROOT).expanduser()))


@dataclass(frozen=True)
class Examples:
    """Some rows of a tensor of images, which other Examples may share and which may lie in a mapped file.

    Attributes:
        images: (M, C, H, W) uint8.
        labels: (M,) int64.
        indices: (N,) int64, the rows that these examples are.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 images and (B,) labels of the examples at `positions` (B,) between 0 and N − 1."""
        rows = self.indices[positions]
        return self.images[rows], self.labels[rows]

    def subset(self, count: int, seed: int) -> "Examples":
        """`count` of these examples, stratified and always the same for a seed; all if there are not more."""
        if count >= len(self):
            return self
        chosen = stratified(self.labels[self.indices].cpu(), count, seed)
        return replace(self, indices=self.indices[chosen.to(self.indices.device)])

    def without(self, others: "Examples") -> "Examples":
        """These examples but for `others`, which share their images."""
        return replace(self, indices=self.indices[~torch.isin(self.indices, others.indices)])

    def to(self, device: torch.device | str) -> "Examples":
        """These examples with their tensors on `device`; nothing is copied that is there already."""
        return Examples(self.images.to(device), self.labels.to(device), self.indices.to(device))


@dataclass(frozen=True)
class Splits:
    """A data set, split. `train` and `validation` share one tensor of images.

    Attributes:
        train: What is trained on.
        validation: Held out of the training images, stratified: what a search is judged on.
        test: Never read by a search.
        classes: Their names.
        mean: Of each channel over the training images, in [0, 1].
        std: Likewise, the standard deviation.
        augmentation: What suits these images.
        source: In words, which data this is and where it came from.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    source: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, equal wherever `DataSpec.image_size` is given."""
        return self.train.images.shape[-2], self.train.images.shape[-1]

    def to(self, device: torch.device | str) -> "Splits":
        """These splits with training and validation images on `device`, moved once; the test set stays where it is."""
        train = self.train.to(device)
        return replace(self, train=train, validation=replace(train, indices=self.validation.indices.to(device)))


def load(spec: DataSpec, *, download: bool = True) -> Splits:
    """The data set that `spec` names, split as it says.

    Args:
        spec: Which data, from where, how split.
        download: Whether a data set that is not there may be downloaded into its folder.

    Raises:
        NotHereError: It is not there, but could be downloaded if `download` allowed it.
        DataError: It can neither be found nor downloaded, or it cannot be split so.
    """
    return split(spec, prepared(spec.dataset, spec.folder, spec.image_size, download=download))


def split(spec: DataSpec, content: dict[str, Any]) -> Splits:
    """`content`, as `datasets.prepared` returns it, split as `spec` says.

    Raises:
        DataError: It cannot be split so.
    """
    train_labels = content["train_labels"]
    rest = torch.arange(len(train_labels))
    train = Examples(content["train_images"], train_labels, rest)
    has_test = "test_images" in content
    _check_validation(spec.validation, len(train), len(content["classes"]), has_test)
    if has_test:
        test = Examples(content["test_images"], content["test_labels"], torch.arange(len(content["test_labels"])))
    else:
        test, train = _hold_out(train, spec.validation, TEST_SEED)
    validation, train = _hold_out(train, spec.validation, spec.split_seed)
    if spec.train_examples is not None:
        if spec.train_examples > len(train):
            raise DataError(f"data.train_examples: {spec.train_examples}, but only {len(train)} training images remain")
        train = train.subset(spec.train_examples, spec.split_seed)
    side = min(train.images.shape[-2:])
    return Splits(
        train=train,
        validation=validation,
        test=test,
        classes=tuple(content["classes"]),
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        augmentation=DATASETS[spec.dataset].augmentation or Augmentation(padding=max(1, side // 8), flip=True),
        source=content["source"],
    )


def _check_validation(count: int, available: int, num_classes: int, has_test: bool) -> None:
    """A data set without a test set gives up `count` images twice; an image a class must remain to train on."""
    most = (available - num_classes) // (1 if has_test else 2)
    if not num_classes <= count <= most:
        twice = "" if has_test else ", and as many for a test set, as there is none"
        raise DataError(
            f"data.validation: {count} images are to be held out of {available} training images{twice}; between "
            f"{num_classes} (one a class) and {most} can be"
        )


def _hold_out(examples: Examples, count: int, seed: int) -> tuple[Examples, Examples]:
    """`count` stratified examples, and the others in their order."""
    held = examples.subset(count, seed)
    stays = torch.ones(len(examples.images), dtype=torch.bool)
    stays[held.indices] = False
    return held, replace(examples, indices=examples.indices[stays[examples.indices]])


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
