"""Data sets by name: how each is found, or downloaded, and read.

To add a data set, write a function of (folder, image size, whether a download is allowed) that returns a `DataSource`,
and add a line to `DATASETS`. The libraries that read files are imported when data is read, so that the name of a data
set and its defaults are known at once.
"""

import http.client
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tune_cure.data.hugging_face import hugging_face_dataset
from tune_cure.data.image_folder import class_folders, find_image_folder
from tune_cure.data.medmnist import medmnist_dataset
from tune_cure.data.source import (
    TEST_SEED,
    Augmentation,
    DataError,
    Dataset,
    DataSource,
    NotHereError,
    stratified,
)
from tune_cure.data.tiny_imagenet import find_tiny_imagenet
from tune_cure.utils.environment import require
from tune_cure.utils.errors import first_line
from tune_cure.utils.registry import Registry

_logger = logging.getLogger(__name__)


def _find_digits(root: Path, image_size: int | None, download: bool) -> DataSource:
    return DataSource("8×8 handwritten digits of scikit-learn (a fixed fifth of them as test set)", "", _read_digits)


def _read_digits() -> dict[str, Any]:
    require("sklearn", "the data set digits")
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(labels, len(labels) // 5, TEST_SEED)] = True
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
        "classes": [str(name) for name in digits.target_names],
    }


def _find_torchvision(
    title: str,
    marker: str,
    files: str,
    num_classes: int,
    read: Callable[[Path, bool], dict[str, Any]],
    root: Path,
    image_size: int | None,
    download: bool,
) -> DataSource:
    """Return a data set of torchvision: its own files in `root`, class folders of pictures there, or a download.

    Args:
        title: Name of the data set, for people.
        marker: One of the data set's own files.
        files: All of its own files, and the address of its home page, for people.
        num_classes: Number of classes. Folders of another number of classes are not this data set.
        read: Function that reads the data set's own files from a folder, or downloads them into it.
        root: The folder.
        image_size: Side to resize pictures to, in pixels; None leaves them as they are.
        download: Allow a download.
    """
    if not (root / marker).exists() and _num_class_folders(root) == num_classes:
        pictures = find_image_folder(root, image_size, download)
        return replace(pictures, source=f"{title}, pictures in {root}")
    return DataSource(
        f"{title}, canonical files in {root}", marker, partial(_read_or_explain, title, files, root, read, download)
    )


def _num_class_folders(root: Path) -> int | None:
    """Return the number of class folders in train/ and in test/ of `root`; None if either is missing or they differ."""
    if not all((root / part).is_dir() for part in ("train", "test")):
        return None
    train, test = (len(class_folders(root / part)) for part in ("train", "test"))
    return train if train == test else None


def _read_or_explain(
    title: str, files: str, root: Path, read: Callable[[Path, bool], dict[str, Any]], download: bool
) -> dict[str, Any]:
    try:
        content = read(root, download)
    # OSError: no network, no permission, a full disk. RuntimeError: a wrong checksum, or nothing there.
    # HTTPException: an answer that is not HTTP.
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if not download:
            raise NotHereError(
                f"{title} is not in {root}, or damaged there; on first use it is downloaded into the default folder, "
                f"or into the one that --data-root names; by hand: {files}"
            ) from error
        raise DataError(
            f"{title} is not in {root} and cannot be downloaded ({first_line(error)}); put {files} there, or name a "
            "folder that has them, or train/CLASS and test/CLASS pictures, with --data-root"
        ) from error
    _logger.info("read %s in %s: done once", title, root)
    return content


def _read_cifar(name: str, root: Path, download: bool) -> dict[str, Any]:
    import torch
    from torchvision import datasets

    kind = getattr(datasets, name)
    parts = {part: kind(root, train=part == "train", download=download) for part in ("train", "test")}
    content: dict[str, Any] = {"classes": list(parts["train"].classes)}
    for part, dataset in parts.items():
        content[f"{part}_images"] = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        content[f"{part}_labels"] = torch.tensor(dataset.targets)
    return content


def _read_svhn(root: Path, download: bool) -> dict[str, Any]:
    import torch
    from torchvision import datasets

    content: dict[str, Any] = {"classes": [str(digit) for digit in range(10)]}
    for part in ("train", "test"):
        dataset = datasets.SVHN(root, split=part, download=download)
        content[f"{part}_images"] = torch.from_numpy(dataset.data).contiguous()
        content[f"{part}_labels"] = torch.from_numpy(dataset.labels).long()
    return content


_CIFAR = Augmentation(padding=4, flip=True)
_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


class _Datasets(Registry[Dataset]):
    """Registry of data sets that also takes a function alone, which finds the data set."""

    def _checked(self, name: str, part: object) -> Dataset:
        return super()._checked(name, part if isinstance(part, Dataset) or not callable(part) else Dataset(part))


DATASETS: Registry[Dataset] = _Datasets(
    "data set",
    {
        "digits": Dataset(
            _find_digits,
            Augmentation(padding=1, flip=False),
            validation=360,
            network="small_cnn",
            epsilon=0.15,
            examples=360,
        ),
        "cifar10": Dataset(
            partial(
                _find_torchvision,
                "CIFAR-10",
                "cifar-10-batches-py",
                f"cifar-10-batches-py/ (from {_CIFAR_PAGE})",
                10,
                partial(_read_cifar, "CIFAR10"),
            ),
            _CIFAR,
            validation=5000,
        ),
        "cifar100": Dataset(
            partial(
                _find_torchvision,
                "CIFAR-100",
                "cifar-100-python",
                f"cifar-100-python/ (from {_CIFAR_PAGE})",
                100,
                partial(_read_cifar, "CIFAR100"),
            ),
            _CIFAR,
            validation=5000,
        ),
        "svhn": Dataset(
            partial(
                _find_torchvision,
                "SVHN",
                "train_32x32.mat",
                "train_32x32.mat and test_32x32.mat (from http://ufldl.stanford.edu/housenumbers/)",
                10,
                _read_svhn,
            ),
            Augmentation(padding=4, flip=False),
            validation=5000,
        ),
        "tiny_imagenet": Dataset(find_tiny_imagenet, Augmentation(padding=8, flip=True), validation=2000),
        "image_folder": Dataset(find_image_folder),
    },
    accepts=lambda part: isinstance(part, Dataset),
    expected="a Dataset, or a function that finds one,",
    families={"medmnist": medmnist_dataset, "hf": hugging_face_dataset},
)
