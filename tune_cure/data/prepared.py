"""Prepared data sets: decoded once, and kept as one file that all processes map into memory.

The file lies in `~/.cache/tune_cure/prepared`, or below `$TUNE_CURE_CACHE`. Mapped, its images are in memory once for
all the trials of a machine (the page cache holds them).
"""

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from tune_cure.data.datasets import DATASETS
from tune_cure.data.source import DataError, DataSource, first_line

_logger = logging.getLogger(__name__)

FORMAT = "1"  # of the prepared files: a change of it prepares every data set anew


def cache_folder() -> Path:
    """Where prepared data lies: `$TUNE_CURE_CACHE`, or `~/.cache/tune_cure`.

    Raises:
        DataError: `$TUNE_CURE_CACHE` is relative: every trial, working in a folder of its own, would fill one there.
    """
    folder = Path(os.environ.get("TUNE_CURE_CACHE", "~/.cache/tune_cure")).expanduser()
    if not folder.is_absolute():
        raise DataError(f"TUNE_CURE_CACHE: {str(folder)!r} is relative; an absolute path is needed")
    return folder


def prepared(name: str, root: Path, image_size: int | None, *, download: bool = True) -> dict[str, Any]:
    """The data set `name`, mapped into memory from its prepared file, which is made first if need be.

    Args:
        name: A key of `DATASETS`.
        root: The folder of its files.
        image_size: The side that images are resized to; None: as they are.
        download: Whether it may be downloaded into `root`.

    Returns:
        What `DataSource.read` returns, with `mean` and `std` of each channel over the training images and `source`.

    Raises:
        NotHereError: It is not there, but could be downloaded if `download` allowed it.
        DataError: It can neither be found nor downloaded, or what is prepared cannot be written.
    """
    return _prepared(name, root, image_size, download)[1]


def prepared_file(name: str, root: Path, image_size: int | None) -> Path:
    """The file that `prepared` maps."""
    return _prepared(name, root, image_size, True)[0]


def received(name: str, fetch: Callable[[], memoryview]) -> dict[str, Any]:
    """What `prepared` returned on another machine, whose file's `name` and bytes are given.

    The bytes are fetched once a machine, and kept in the cache folder.
    """
    folder = cache_folder() / "received"
    path = folder / name
    with _locked(folder, name):
        content = _open(path)
        if content is None:
            _write(lambda file: file.write_bytes(fetch()), path)
            content = _open(path)
            assert content is not None
    return content


def _prepared(name: str, root: Path, image_size: int | None, download: bool) -> tuple[Path, dict[str, Any]]:
    folder = cache_folder() / "prepared"
    place = hashlib.sha256(repr((name, os.path.realpath(root), image_size)).encode()).hexdigest()[:12]
    prefix = f"{name}-{place}"
    # Two processes must neither download nor prepare at once; the second finds what the first has made.
    with _locked(folder, prefix):
        try:
            found = DATASETS.resolve(name).find(root, image_size, download)
        except OSError as error:  # no permission, a name too long
            raise DataError(f"{root}: cannot be read ({first_line(error)})") from error
        state = hashlib.sha256(f"{FORMAT} {found.fingerprint}".encode()).hexdigest()[:12]
        path = folder / f"{prefix}-{state}.pt"
        content = _open(path)
        if content is None:
            ready = _prepare(found, image_size)
            _write(lambda file: torch.save(ready, file), path)
            for stale in folder.glob(f"{prefix}-*.pt"):
                if stale != path:
                    stale.unlink()
            content = _open(path)
            assert content is not None
    return path, content


@contextmanager
def _locked(folder: Path, prefix: str) -> Iterator[None]:
    """Holds the lock of a data set in `folder`, which is made if need be."""
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
    """Writes `path` whole or not at all: other processes may map what was there before."""
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


def _open(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:  # truncated, empty, or foreign
        _logger.warning("%s: is damaged (%s) and is made anew", path, first_line(error))
        return None
    return content


def _prepare(found: DataSource, image_size: int | None) -> dict[str, Any]:
    content = found.read()
    if image_size is not None:
        for name in ("train_images", "test_images"):
            if name in content and content[name].shape[-2:] != (image_size, image_size):
                content[name] = _resize(content[name], image_size)
    sums = torch.zeros(2, content["train_images"].shape[1], dtype=torch.float64)
    for chunk in content["train_images"].split(1000):
        pixels = chunk.double() / 255.0
        sums += torch.stack([pixels.sum(dim=(0, 2, 3)), pixels.square().sum(dim=(0, 2, 3))])
    mean, square = sums / (content["train_images"].numel() / content["train_images"].shape[1])
    std = (square - mean.square()).clamp_min(1e-12).sqrt()
    return {**content, "mean": mean.tolist(), "std": std.tolist(), "source": found.source}


def _resize(images: Tensor, side: int) -> Tensor:
    chunks = [
        F.interpolate(chunk.float(), size=(side, side), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for chunk in images.split(1000)
    ]
    return torch.cat(chunks)
