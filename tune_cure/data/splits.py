"""Data sets as uint8 tensors on the device: split, and batched there."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.data.prepared import prepared
from tune_cure.data.source import TEST_SEED, Augmentation, DataError, stratified


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


def with_validation(spec: DataSpec, splits: Splits) -> DataSpec:
    """Return `spec` with the number of validation images written out.

    Where a data set's default is a share of its images, the number is known only once they have been counted.
    """
    return spec.model_copy(update={"validation": len(splits.validation)})


def split(spec: DataSpec, content: dict[str, Any]) -> Splits:
    """`content`, as `datasets.prepared` returns it, split as `spec` says.

    Raises:
        DataError: It cannot be split so.
    """
    train_labels = content["train_labels"]
    rest = torch.arange(len(train_labels))
    train = Examples(content["train_images"], train_labels, rest)
    has_test = "test_images" in content
    dataset, num_classes = DATASETS.resolve(spec.dataset), len(content["classes"])
    num_validation = spec.validation or dataset.num_validation(len(train), num_classes)
    _check_validation(num_validation, len(train), num_classes, has_test)
    if has_test:
        test = Examples(content["test_images"], content["test_labels"], torch.arange(len(content["test_labels"])))
    else:
        test, train = _hold_out(train, num_validation, TEST_SEED)
    validation, train = _hold_out(train, num_validation, spec.split_seed)
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
        augmentation=dataset.augmentation or Augmentation(padding=max(1, side // 8), flip=True),
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
