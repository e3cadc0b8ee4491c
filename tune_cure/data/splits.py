"""Splits of a data set into training, validation and test images, as uint8 tensors."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.data.prepared import prepared
from tune_cure.data.source import TEST_SEED, Augmentation, DataError, stratified

_logger = logging.getLogger(__name__)
FEW = 5
"""Classes that a warning names at most."""


@dataclass(frozen=True)
class Examples:
    """Some rows of a tensor of images. Other examples may share the tensor, and it may lie in a memory-mapped file.

    Attributes:
        images: (M, C, H, W) uint8.
        labels: (M,) int64.
        indices: (N,) int64, the rows of these examples.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def own_labels(self) -> Tensor:
        """The (N,) labels of these examples, in their order."""
        return self.labels[self.indices]

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, C, H, W) uint8 images and (B,) labels at `positions` (B,), which lie between 0 and N − 1."""
        rows = self.indices[positions]
        return self.images[rows], self.labels[rows]

    def subset(self, count: int, seed: int) -> "Examples":
        """Return `count` of these examples, stratified and fixed by the seed; all of them if there are not more."""
        if count >= len(self):
            return self
        chosen = stratified(self.own_labels.cpu(), count, seed)
        return replace(self, indices=self.indices[chosen.to(self.indices.device)])

    def without(self, others: "Examples") -> "Examples":
        """Return these examples without `others`, which share their tensor of images."""
        return replace(self, indices=self.indices[~torch.isin(self.indices, others.indices)])

    def to(self, device: torch.device | str) -> "Examples":
        """Return these examples with their tensors on `device`; what is there already is not copied."""
        return Examples(self.images.to(device), self.labels.to(device), self.indices.to(device))


@dataclass(frozen=True)
class Splits:
    """A data set in its three splits. `train` and `validation` share one tensor of images.

    Attributes:
        train: Examples to train on.
        validation: Examples held out of the training images, stratified, on which a search is evaluated.
        test: Examples that a search never reads.
        has_own_test: True if the data set has a test set, False if `test` was held out of its training images.
        classes: Names of the classes.
        mean: Mean of each channel over the training images, in [0, 1]. These include the validation images and, without
            `has_own_test`, the images that were held out as test set.
        std: Standard deviation of each channel over the same images.
        augmentation: Augmentation of the training images.
        source: Which data this is and where it came from, in words.
    """

    train: Examples
    validation: Examples
    test: Examples
    has_own_test: bool
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    source: str

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels; equal where `DataSpec.image_size` is given."""
        return self.train.images.shape[-2], self.train.images.shape[-1]

    def to(self, device: torch.device | str) -> "Splits":
        """Return the splits with training and validation images on `device`; the test set stays where it is."""
        train = self.train.to(device)
        return replace(self, train=train, validation=replace(train, indices=self.validation.indices.to(device)))

    def all_training_images(self) -> Examples:
        """Return the images of `train` and `validation` together, in the order of their indices."""
        indices = torch.cat([self.train.indices, self.validation.indices]).sort().values
        return replace(self.train, indices=indices)


def load(spec: DataSpec, *, download: bool = True) -> Splits:
    """Load the data set that `spec` names, and split it.

    Args:
        spec: The data set, its folder and its split.
        download: Allow to download a missing data set into its folder.

    Raises:
        NotHereError: The data set is missing, but could be downloaded if `download` allowed it.
        DataError: The data set can neither be found nor downloaded, or it cannot be split as `spec` says.
        PartError: There is no data set of this name.
    """
    return split(spec, prepared(spec.dataset, spec.folder, spec.image_size, download=download))


def with_validation(spec: DataSpec, splits: Splits) -> DataSpec:
    """Return `spec` with the number of validation images written out.

    Where a data set's default is a share of its images, the number is known only once they have been counted.
    """
    return spec.model_copy(update={"validation": len(splits.validation)})


def split(spec: DataSpec, content: dict[str, Any]) -> Splits:
    """Split `content`, a data set as `prepared.prepared` returns it, as `spec` says.

    Raises:
        DataError: It has too few images for that split.
    """
    train = Examples(content["train_images"], content["train_labels"], torch.arange(len(content["train_labels"])))
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
        train = _choose_training_images(train, spec.train_examples, spec.split_seed, content["classes"])
    side = min(train.images.shape[-2:])
    augmentation = dataset.augmentation or Augmentation(padding=max(1, side // 8), flip=True)
    splits = Splits(
        train=train,
        validation=validation,
        test=test,
        has_own_test=has_test,
        classes=tuple(content["classes"]),
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        augmentation=augmentation if spec.flip is None else replace(augmentation, flip=spec.flip),
        source=content["source"],
    )
    _warn_of_missing_classes(splits)
    return splits


def _check_validation(count: int, available: int, num_classes: int, has_test: bool) -> None:
    """Check that one image per class can remain to train on; without a test set, `count` images are held out twice.

    Raises:
        DataError: Too few or too many images are to be held out.
    """
    most = (available - num_classes) // (1 if has_test else 2)
    if not num_classes <= count <= most:
        twice = "" if has_test else ", and as many for a test set, as there is none"
        raise DataError(
            f"data.validation: {count} images are to be held out of {available} training images{twice}; between "
            f"{num_classes} (the number of classes) and {most} can be"
        )


def _hold_out(examples: Examples, count: int, seed: int) -> tuple[Examples, Examples]:
    """Return `count` stratified examples, and the others in their order, among them one or more of each class."""
    chosen = stratified(examples.own_labels, count, seed, leave_one=True)
    held_out = replace(examples, indices=examples.indices[chosen])
    return held_out, examples.without(held_out)


def _choose_training_images(examples: Examples, count: int, seed: int, classes: Sequence[str]) -> Examples:
    """Return `count` of the examples that remain to train on, stratified.

    Raises:
        DataError: There are not so many, or none of them is of some class.
    """
    if count > len(examples):
        raise DataError(f"data.train_examples: {count}, but only {len(examples)} training images remain")
    chosen = examples.subset(count, seed)
    missing = set(examples.own_labels.unique().tolist()) - set(chosen.own_labels.tolist())
    if missing:
        raise DataError(f"data.train_examples: none of {count} is of class {classes[min(missing)]!r}; more are needed")
    return chosen


def _warn_of_missing_classes(splits: Splits) -> None:
    """Warn of classes that a split has no image of: its accuracies say nothing about them."""
    for name, part in (("training", splits.train), ("validation", splits.validation), ("test", splits.test)):
        present = set(part.own_labels.unique().tolist())
        missing = [label for index, label in enumerate(splits.classes) if index not in present]
        if missing:
            few = ", ".join([*missing[:FEW], *["…"] * (len(missing) > FEW)])
            text = "%s: %d of %d classes have no %s image: %s"
            _logger.warning(text, splits.source, len(missing), splits.num_classes, name, few)
