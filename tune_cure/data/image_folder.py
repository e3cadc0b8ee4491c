"""Data sets of picture files in one folder for each class."""

import logging
import stat
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tune_cure.data.source import DataError, DataSource

if TYPE_CHECKING:
    import numpy as np

_logger = logging.getLogger(__name__)
MAX_PIXELS = 50_000_000  # of a picture; its decoding takes three bytes each, and resizing them as many
MAX_RATIO = 20  # of a picture's sides: resizing makes the shorter one data.image_size, and the longer one grows with it
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def find_image_folder(root: Path, image_size: int | None, download: bool) -> DataSource:
    """Return the data set of pictures in train/CLASS and, if there is one, test/CLASS, or in CLASS folders alone.

    Args:
        root: The folder.
        image_size: Side to resize the pictures to, in pixels; None leaves them as they are.
        download: Without effect: there is nothing to download.

    Raises:
        DataError: The folder is missing, or it does not hold at least two folders of pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; name one of class folders with --data-root")
    parts = {part: root / part for part in ("train", "test") if (root / part).is_dir()}
    if "train" not in parts or not class_folders(parts["train"]):  # it can be a class: bus, car, train
        parts = {"train": root}
    listings = {part: _list(folder) for part, folder in parts.items()}
    classes = list(listings["train"])
    if "test" in listings and list(listings["test"]) != classes:
        raise DataError(f"{root}: train/ and test/ must have the same class folders")
    files = [(file, file.stat()) for listing in listings.values() for folder in listing.values() for file in folder]
    for file, state in files:
        if not stat.S_ISREG(state.st_mode):  # reading a pipe would never end
            raise DataError(f"{file}: cannot be read as a picture")
    # Paths are relative, so that the same folder is not decoded again under another path, such as a link.
    fingerprint = repr([(str(file.relative_to(root)), state.st_size, state.st_mtime_ns) for file, state in files])
    return DataSource(f"pictures in {root}", fingerprint, partial(read_pictures, listings, image_size, root))


def _list(folder: Path) -> dict[str, list[Path]]:
    """Return the picture files of each class by its name, both sorted, without hidden files and folders."""
    listing = {
        entry.name: sorted(file for file in entry.iterdir() if is_picture(file)) for entry in class_folders(folder)
    }
    if len(listing) < 2:
        raise DataError(
            f"{folder}: has {len(listing)} class folders; a folder for each of two classes or more is needed"
        )
    for name, files in listing.items():
        if not files:
            raise DataError(f"{folder / name}: has no pictures; allowed are {', '.join(EXTENSIONS)}")
    return listing


def class_folders(folder: Path) -> list[Path]:
    """Return the sub-folders of `folder` that are not hidden, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def is_picture(file: Path) -> bool:
    """Return whether a file has the name of a picture; hidden files of macOS have that, too, but are none."""
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def read_pictures(listings: dict[str, dict[str, list[Path]]], side: int | None, root: Path) -> dict[str, Any]:
    """Return the content of a data set whose pictures are files.

    Args:
        listings: The files of each class by its name, by `train` and, if there is one, `test`.
        side: Side to resize the pictures to, in pixels; None leaves them as they are.
        root: Their folder, for messages.

    Returns:
        As `DataSource.read`.

    Raises:
        DataError: A file is no picture, or pictures have different sizes.
    """
    with oversized_pictures_are_errors():
        return _read_pictures(listings, side, root)


@contextmanager
def oversized_pictures_are_errors() -> Iterator[None]:
    """Leave it to `decode_picture` to refuse pictures of many pixels, of which Pillow warns."""
    from PIL import Image

    with warnings.catch_warnings():  # set once for all threads
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _read_pictures(listings: dict[str, dict[str, list[Path]]], side: int | None, root: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    content: dict[str, Any] = {"classes": list(listings["train"])}
    total = sum(len(files) for listing in listings.values() for files in listing.values())
    _logger.info("reading %s pictures in %s: done once", f"{total:,}", root)
    first = next(iter(listings["train"].values()))[0]
    size = _decode(first, side).shape[:2]
    for part, listing in listings.items():
        files = [file for folder in listing.values() for file in folder]
        try:
            images = np.empty((len(files), 3, *size), dtype=np.uint8)
        except MemoryError as error:
            sizes = f"{len(files):,} pictures of {size[1]}×{size[0]}, the size of {first}"
            raise DataError(f"{root}: {sizes}, do not fit into memory; set data.image_size") from error
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


def _check_size(file: Path | str, width: int, height: int) -> None:
    """Refuse a picture that would take gigabytes: a file of a few kilobytes can say that it has any size."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(
            f"{file}: is {width}×{height}; at most {MAX_PIXELS:,} pixels are read, and a longer side of {MAX_RATIO} "
            "times the shorter one"
        )


def _check_mode(file: Path | str, mode: str) -> None:
    """Refuse a picture of more than 8 bits a channel: Pillow would make each value above 255 white."""
    if mode.startswith(("I", "F")):
        raise DataError(f"{file}: its pixels are of Pillow's mode {mode}; pictures of 8 bits a channel are needed")


def _decode(file: Path, side: int | None) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return decode_picture(file, file, side)


def decode_picture(
    content: Path | BinaryIO, name: Path | str, side: int | None
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return a picture as (H, W, 3) uint8; with `side`, resize its shorter side to that and cut out the center.

    Args:
        content: The file, or an open one.
        name: Names it in errors.
        side: The side, in pixels; None leaves the picture as it is.

    Raises:
        DataError: It is no picture, has too many pixels, or more than 8 bits a channel.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(content) as picture:
            _check_size(name, *picture.size)
            _check_mode(name, picture.mode)
            image = picture.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise errors of any kind
        raise DataError(f"{name}: cannot be read as a picture") from error
    if side is not None:
        scale = side / min(image.size)
        image = image.resize(
            (max(side, round(image.width * scale)), max(side, round(image.height * scale))), Image.Resampling.BILINEAR
        )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image)
