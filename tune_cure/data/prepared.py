"""Prepared data sets: decoded once, and kept as one file that all processes map into memory.

The file lies in the folder `prepared` of `folders.cache_folder`. Its images are in memory once for all trials of a
machine, in the page cache.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from tune_cure.data.datasets import DATASETS
from tune_cure.data.folders import cache_folder
from tune_cure.data.source import DataError, DataSource
from tune_cure.utils.errors import TuneCureError, first_line

_logger = logging.getLogger(__name__)

FORMAT = "2"
"""Version of the prepared files' content. Every data set is prepared anew when it changes."""
LEAST_STD = 1 / 255
"""Least standard deviation, in pixel units, that a channel is divided by. One that varies less is centered alone."""


def prepared(name: str, root: Path, image_size: int | None, *, download: bool = True) -> dict[str, Any]:
    """Map a data set into memory from its prepared file, which is written first where it is missing.

    Args:
        name: Name of the data set.
        root: Folder of its files.
        image_size: Side that images are resized to, in pixels; None leaves them as they are.
        download: Allow a download into `root`.

    Returns:
        The content that `DataSource.read` returns, with `mean` and `std` of each channel over the training images, and
        `source`.

    Raises:
        NotHereError: The data set is missing, but could be downloaded if `download` allowed it.
        DataError: The data set can neither be found nor downloaded, or the prepared file cannot be written.
        PartError: There is no data set of this name.
    """
    return prepare_and_map(name, root, image_size, download)[1]


def summarize(content: Mapping[str, Any]) -> str:
    """Return a digest by which machines compare their content of a data set without sending it.

    It is made of the classes, the labels, the shapes, and the means and deviations of the channels to six digits.
    """
    digest = hashlib.sha256(repr(content["classes"]).encode())
    for key in ("train", "test"):
        if f"{key}_labels" in content:
            digest.update(repr(tuple(content[f"{key}_images"].shape)).encode())
            digest.update(content[f"{key}_labels"].numpy().tobytes())
    digest.update(" ".join(f"{value:.6g}" for value in (*content["mean"], *content["std"])).encode())
    return digest.hexdigest()


def received(name: str, fetch: Callable[[], memoryview]) -> dict[str, Any]:
    """Map a data set that another machine has prepared.

    Args:
        name: Name of the prepared file.
        fetch: Function that returns the file's bytes. It is called once on each machine; the cache folder keeps them.
    """
    folder = cache_folder() / "received"
    path = folder / name
    with _locked(folder, _prefix(path)):  # of all states: none deletes what another process has just written
        content = _open(path)
        if content is None:
            _write(lambda file: file.write_bytes(fetch()), path)
            _delete_stale(path)
            content = _open(path)
            assert content is not None
    return content


def prepare_and_map(name: str, root: Path, image_size: int | None, download: bool) -> tuple[Path, dict[str, Any]]:
    """Return a data set's prepared file and its content; arguments and errors are those of `prepared`."""
    dataset = DATASETS.resolve(name)
    folder = cache_folder() / "prepared"
    origin = hashlib.sha256(repr((name, os.path.realpath(root), image_size)).encode()).hexdigest()[:12]
    prefix = f"{re.sub('[:/]', '.', name)}-{origin}"
    # Two processes must neither download nor prepare at the same time: the second finds the first one's file.
    with _locked(folder, prefix):
        try:
            with _one_line_errors(name):
                source = dataset.find(root, image_size, download)
        except OSError as error:  # no permission, or a name that is too long
            raise DataError(f"{root}: cannot be read ({first_line(error)})") from error
        if not isinstance(source, DataSource):
            raise DataError(f"data set {name!r}: a DataSource is needed, but its function returned {source!r:.100}")
        state = hashlib.sha256(f"{FORMAT} {source.fingerprint}".encode()).hexdigest()[:12]
        path = folder / f"{prefix}-{state}.pt"
        content = _open(path)
        if content is None:
            decoded = _decode(name, source, image_size)
            _write(lambda file: torch.save(decoded, file), path)
            _delete_stale(path)
            content = _open(path)
            assert content is not None
    return path, content


@contextmanager
def _locked(folder: Path, prefix: str) -> Iterator[None]:
    """Hold the lock of a data set in `folder`, which is made where it is missing."""
    lock = FileLock(folder / f"{prefix}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({first_line(error)}); set TUNE_CURE_CACHE to a folder that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(write: Callable[[Path], object], path: Path) -> None:
    """Write `path` whole or not at all, since other processes may map the file that was there before."""
    partial_path = path.with_suffix(".partial")
    try:
        write(partial_path)
        os.replace(partial_path, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial_path.unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot be written ({first_line(error)}); free some space, or set TUNE_CURE_CACHE to another "
            "folder"
        ) from error


def _delete_stale(path: Path) -> None:
    """Delete the files of other states of the data set of a prepared file; who maps one keeps what it has mapped."""
    for other in path.parent.glob(f"{_prefix(path)}-*.pt"):
        if other != path:
            other.unlink()


def _prefix(path: Path) -> str:
    """Return what the names of a data set's prepared files have in common, whatever state they are of."""
    return path.stem.rpartition("-")[0]


def _open(path: Path) -> dict[str, Any] | None:
    """Return the content of a prepared file; None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
        _check_content(path.name, content)
        _check_statistics(content)
    except Exception:  # a damaged file makes struct, pickle or zipfile raise errors of any kind
        _logger.warning("%s: is damaged, and is made anew", path)
        return None
    return content


def _decode(name: str, source: DataSource, image_size: int | None) -> dict[str, Any]:
    """Read a data set, resize its images, and measure the mean and the standard deviation of each channel."""
    try:
        with _one_line_errors(name):
            content = source.read()
    except OSError as error:  # files that are not where such a data set has them
        raise DataError(f"data set {name!r}: cannot be read: {error}") from error
    _check_content(name, content)
    if image_size is not None:
        for key in ("train_images", "test_images"):
            if key in content and content[key].shape[-2:] != (image_size, image_size):
                content[key] = _resize(content[key], image_size)
    _check_test_shape(name, content)
    sums = torch.zeros(2, content["train_images"].shape[1], dtype=torch.float64)
    for chunk in content["train_images"].split(1000):
        pixels = chunk.double() / 255.0
        sums += torch.stack([pixels.sum(dim=(0, 2, 3)), pixels.square().sum(dim=(0, 2, 3))])
    mean, square = sums / (content["train_images"].numel() / content["train_images"].shape[1])
    std = (square - mean.square()).clamp_min(0).sqrt()
    # Divided by almost 0, the perturbation of a constant channel, or the crops' zero padding, would drown all else.
    std[std < LEAST_STD] = 1.0
    return {**content, "mean": mean.tolist(), "std": std.tolist(), "source": source.source}


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turn any exception of the function of a data set of the user's own into an error of one line."""
    try:
        yield
    except TuneCureError:
        raise
    except Exception as error:  # the user's own code runs, which can raise anything
        if DATASETS.is_builtin(name):
            raise
        raise DataError(f"data set {name!r}: cannot be read: {type(error).__name__}: {first_line(error)}") from error


def _check_content(name: str, content: Mapping[str, Any]) -> None:
    """Check that a data set's function returned what `DataSource.read` must return.

    Raises:
        DataError: An entry is missing, or of another type, shape or range.
    """
    expected = f"data set {name!r}: its function must read "
    if not isinstance(content, Mapping) or not {"train_images", "train_labels", "classes"} <= content.keys():
        raise DataError(f"{expected}train_images, train_labels and classes")
    num_classes = len(content["classes"])
    if num_classes < 2:
        raise DataError(f"{expected}the names of two classes or more, but read {num_classes}")
    for part in ("train", "test") if {"test_images", "test_labels"} & content.keys() else ("train",):
        images, labels = content.get(f"{part}_images"), content.get(f"{part}_labels")
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
            raise DataError(f"{expected}{part}_images as a tensor (M, C, H, W) of uint8")
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(f"{expected}{part}_labels as a tensor (M,) of int64, one for each image")
        if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise DataError(f"{expected}{part}_labels from 0 to {num_classes - 1}, the index of a class")


def _check_test_shape(name: str, content: Mapping[str, Any]) -> None:
    """Check that test images, resized where a size is given, have the shape of the training images.

    Raises:
        DataError: They have other channels or another size.
    """
    if "test_images" not in content:
        return
    (channels, *size), (test_channels, *test_size) = (content[f"{part}_images"].shape[1:] for part in ("train", "test"))
    if test_channels != channels:
        shapes, rule = f"{channels} channels, but test images of {test_channels}", "the same number is needed"
    elif test_size != size:
        shapes = f"{size[1]}×{size[0]}, but test images of {test_size[1]}×{test_size[0]}"
        rule = "images of different sizes need data.image_size"
    else:
        return
    raise DataError(f"data set {name!r}: has training images of {shapes}; {rule}")


def _check_statistics(content: Mapping[str, Any]) -> None:
    """Check what a prepared file adds to the content of a data set's function.

    Raises:
        DataError: An entry is missing, or of another type.
    """
    channels = content["train_images"].shape[1]
    for name in ("mean", "std"):
        values = content.get(name)
        if not isinstance(values, list) or [type(value) for value in values] != [float] * channels:
            raise DataError(f"{name} is no list of {channels} numbers")
    if not isinstance(content.get("source"), str):
        raise DataError("source is no text")


def _resize(images: Tensor, side: int) -> Tensor:
    """Return images (M, C, H, W) uint8 as (M, C, side, side) uint8."""
    chunks = [
        F.interpolate(chunk.float(), size=(side, side), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for chunk in images.split(1000)
    ]
    return torch.cat(chunks)
