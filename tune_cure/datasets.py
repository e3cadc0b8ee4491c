"""Data sets by name: found or downloaded, decoded once, and kept as one file that all processes map into memory.

The file lies in `~/.cache/tune_cure/prepared`, or below `$TUNE_CURE_CACHE`. Mapped, its images are in memory once for
all the trials of a machine (the page cache holds them).

To add a data set: write a function of (folder, image size, whether a download is allowed) that finds it, add a line to
`DATASETS`.
"""

import hashlib
import http.client
import logging
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from torch import Tensor

FORMAT = "1"  # of the prepared files: a change of it prepares every data set anew
TEST_SEED = 0  # of the test sets that data sets do not bring themselves
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_logger = logging.getLogger(__name__)


class DataError(ValueError):
    """Data that cannot be found or used. Its text is one line: what was found, where, what is allowed."""


class NotHereError(DataError):
    """Data that is not there, but can be downloaded."""


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, and random horizontal flip."""

    padding: int
    flip: bool


@dataclass(frozen=True)
class Found:
    """A data set that is there, or can be downloaded: its origin in words, its state, and how to read it.

    `read` returns train_images and test_images (M, C, H, W) uint8, train_labels and test_labels (M,) int64, and
    classes; without the test_ entries, a test set is held out of the training images.
    """

    source: str
    fingerprint: str
    read: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Dataset:
    """An entry of `DATASETS`.

    `find` takes the folder, the side to resize images to (None: as they are), and whether a download is allowed.
    """

    find: Callable[[Path, int | None, bool], Found]
    augmentation: Augmentation | None = None  # None: an eighth of the side as padding, and flips


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
        What `Found.read` returns, with `mean` and `std` of each channel over the training images and `source`.

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
            found = DATASETS[name].find(root, image_size, download)
        except OSError as error:  # no permission, a name too long
            raise DataError(f"{root}: cannot be read ({_reason(error)})") from error
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
            f"{folder}: cannot be written ({_reason(error)}); set TUNE_CURE_CACHE to a folder that can"
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
            f"{path}: cannot be written ({_reason(error)}); free some space, or set TUNE_CURE_CACHE to another folder"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none (a TimeoutError, say)."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _open(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:  # truncated, empty, or foreign
        _logger.warning("%s: is damaged (%s) and is made anew", path, _reason(error))
        return None
    return content


def _prepare(found: Found, image_size: int | None) -> dict[str, Any]:
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


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """(count,) positions in `labels`, each class in its share (largest remainders), sorted; fixed by the seed."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(labels)
    shares = sizes.double() * count / len(labels)
    quotas = shares.floor().long()
    missing = count - int(quotas.sum())
    quotas[(quotas - shares).argsort(stable=True)[:missing]] += 1
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen).sort().values


def _find_digits(root: Path, image_size: int | None, download: bool) -> Found:
    return Found("8×8 handwritten digits of scikit-learn (a fixed fifth of them as test set)", "", _read_digits)


def _read_digits() -> dict[str, Any]:
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
    num_classes: int,
    read: Callable[[Path, bool], dict[str, Any]],
    root: Path,
    image_size: int | None,
    download: bool,
) -> Found:
    """A data set of torchvision: its own files in `root` (`marker` is one), class folders, or a download.

    Folders of another number of classes are not this data set and are passed over.
    """
    if not (root / marker).exists() and _num_class_folders(root) == num_classes:
        found = _find_image_folder(root, image_size, download)
        return replace(found, source=f"{title}, pictures in {root}")
    return Found(f"{title}, canonical files in {root}", marker, partial(_read_or_explain, title, root, read, download))


def _num_class_folders(root: Path) -> int | None:
    """Of train/ and of test/ in `root`; None if either is missing or they differ."""
    if not all((root / part).is_dir() for part in ("train", "test")):
        return None
    train, test = (len(_class_folders(root / part)) for part in ("train", "test"))
    return train if train == test else None


def _read_or_explain(
    title: str, root: Path, read: Callable[[Path, bool], dict[str, Any]], download: bool
) -> dict[str, Any]:
    try:
        content = read(root, download)
    # No network, no permission, a full disk; a wrong checksum, or nothing there; an answer that is not HTTP.
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if not download:
            raise NotHereError(
                f"{title} is not in {root}, or damaged there; on first use it is downloaded into the "
                "default folder, or into the one that --data-root names"
            ) from error
        raise DataError(
            f"{title} is not in {root} and cannot be downloaded ({_reason(error)}); put its files there, or name a "
            "folder that has them, or train/CLASS and test/CLASS pictures, with --data-root"
        ) from error
    _logger.info("read %s in %s: done once", title, root)
    return content


def _read_cifar(name: str, root: Path, download: bool) -> dict[str, Any]:
    from torchvision import datasets

    kind = getattr(datasets, name)
    parts = {part: kind(root, train=part == "train", download=download) for part in ("train", "test")}
    content: dict[str, Any] = {"classes": list(parts["train"].classes)}
    for part, dataset in parts.items():
        content[f"{part}_images"] = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        content[f"{part}_labels"] = torch.tensor(dataset.targets)
    return content


def _read_svhn(root: Path, download: bool) -> dict[str, Any]:
    from torchvision import datasets

    content: dict[str, Any] = {"classes": [str(digit) for digit in range(10)]}
    for part in ("train", "test"):
        dataset = datasets.SVHN(root, split=part, download=download)
        content[f"{part}_images"] = torch.from_numpy(dataset.data).contiguous()
        content[f"{part}_labels"] = torch.from_numpy(dataset.labels.astype(np.int64))
    return content


def _find_image_folder(root: Path, image_size: int | None, download: bool) -> Found:
    """Pictures in train/CLASS and test/CLASS, or in CLASS folders alone."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; name one of class folders with --data-root")
    parts = {part: root / part for part in ("train", "test")}
    if not parts["train"].is_dir():
        parts = {"train": root}
    elif not parts["test"].is_dir():
        raise DataError(f"{root}: has train/ but no test/; both are needed, or class folders alone")
    listings = {part: _list(folder) for part, folder in parts.items()}
    classes = list(listings["train"])
    if "test" in listings and list(listings["test"]) != classes:
        raise DataError(f"{root}: train/ and test/ must have the same class folders")
    files = [(file, file.stat()) for listing in listings.values() for folder in listing.values() for file in folder]
    for file, state in files:
        if not stat.S_ISREG(state.st_mode):  # to read a pipe would take for ever
            raise DataError(f"{file}: cannot be read as a picture")
    # Relative, so that the same folder by another path (a link) is not decoded anew.
    fingerprint = repr([(str(file.relative_to(root)), state.st_size, state.st_mtime_ns) for file, state in files])
    return Found(f"pictures in {root}", fingerprint, partial(_read_image_folder, listings, image_size, root))


def _list(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its picture files, both sorted; hidden files and folders are passed over."""
    listing = {
        entry.name: sorted(file for file in entry.iterdir() if _is_picture(file)) for entry in _class_folders(folder)
    }
    if len(listing) < 2:
        raise DataError(
            f"{folder}: has {len(listing)} class folders; a folder for each of two classes or more is needed"
        )
    for name, files in listing.items():
        if not files:
            raise DataError(f"{folder / name}: has no pictures; allowed are {', '.join(EXTENSIONS)}")
    return listing


def _class_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def _read_image_folder(listings: dict[str, dict[str, list[Path]]], side: int | None, root: Path) -> dict[str, Any]:
    content: dict[str, Any] = {"classes": list(listings["train"])}
    total = sum(len(files) for listing in listings.values() for files in listing.values())
    _logger.info("reading %s pictures in %s: done once", f"{total:,}", root)
    first = next(iter(listings["train"].values()))[0]
    size = _decode(first, side).shape[:2]
    for part, listing in listings.items():
        files = [file for folder in listing.values() for file in folder]
        images = np.empty((len(files), 3, *size), dtype=np.uint8)
        with ThreadPoolExecutor() as pool:
            for index, picture in enumerate(pool.map(partial(_decode, side=side), files)):
                if picture.shape[:2] != size:
                    raise DataError(
                        f"{files[index]}: is {picture.shape[1]}×{picture.shape[0]}, but {first} is "
                        f"{size[1]}×{size[0]}; pictures of different sizes need data.image_size"
                    )
                images[index] = picture.transpose(2, 0, 1)
        content[f"{part}_images"] = torch.from_numpy(images)
        counts = torch.tensor([len(folder) for folder in listing.values()])
        content[f"{part}_labels"] = torch.arange(len(listing)).repeat_interleave(counts)
    return content


def _decode(file: Path, side: int | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) uint8; with `side`, the shorter side is resized to it and the centre cut out."""
    try:
        with Image.open(file) as picture:
            image = picture.convert("RGB")
    # A damaged header makes PIL read nonsense as a number (ValueError) or as a size of gigabytes.
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as a picture") from error
    if side is not None:
        scale = side / min(image.size)
        image = image.resize(
            (max(side, round(image.width * scale)), max(side, round(image.height * scale))), Image.Resampling.BILINEAR
        )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image)


_CIFAR = Augmentation(padding=4, flip=True)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset(_find_digits, Augmentation(padding=1, flip=False)),
    "cifar10": Dataset(
        partial(_find_torchvision, "CIFAR-10", "cifar-10-batches-py", 10, partial(_read_cifar, "CIFAR10")),
        _CIFAR,
    ),
    "cifar100": Dataset(
        partial(_find_torchvision, "CIFAR-100", "cifar-100-python", 100, partial(_read_cifar, "CIFAR100")),
        _CIFAR,
    ),
    "svhn": Dataset(
        partial(_find_torchvision, "SVHN", "train_32x32.mat", 10, _read_svhn), Augmentation(padding=4, flip=False)
    ),
    "image_folder": Dataset(_find_image_folder),
}
