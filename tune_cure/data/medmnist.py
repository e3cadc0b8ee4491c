"""MedMNIST (Yang et al. 2023): medical pictures, an NPZ file for each data set.

Its package, an extra, downloads the files. Reading a file that is there needs no package.
"""

import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from tune_cure.data.downloads import whole_download
from tune_cure.data.source import Augmentation, DataError, Dataset, DataSource, NotHereError
from tune_cure.utils.errors import first_line
from tune_cure.utils.registry import PartError

PAGE = "https://medmnist.com"
SMALL = "_28"  # the size whose files have no suffix
_NAME = re.compile(r"[A-Za-z0-9]+(_[0-9]+)?")


def medmnist_dataset(name: str) -> Dataset:
    """Return the data set of this name in MedMNIST: `pathmnist`, or `pathmnist_64` for pictures of 64×64.

    Raises:
        PartError: It cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise PartError(f"data set 'medmnist:{name}': a name such as pathmnist or pathmnist_64 is needed")
    return Dataset(partial(_find, name.removesuffix(SMALL)), Augmentation(padding=3, flip=True))


def _find(name: str, root: Path, image_size: int | None, download: bool) -> DataSource:
    file = root / f"{name}.npz"
    if not file.is_file():
        if not download:
            raise NotHereError(
                f"MedMNIST's {name} is not in {root}; on first use it is downloaded into the default folder, or into "
                f"the one that --data-root names; by hand: {file.name} (from {PAGE})"
            )
        _download(name, file)
    state = file.stat()
    return DataSource(f"MedMNIST's {name} in {root}", repr((state.st_size, state.st_mtime_ns)), partial(_read, file))


def _read(file: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    try:
        with np.load(file, allow_pickle=False) as arrays:
            parts = {key: arrays[key] for key in arrays.files}
    except Exception as error:  # a damaged archive makes zipfile and numpy raise errors of any kind
        raise DataError(
            f"{file}: cannot be read as an NPZ file: {first_line(error)}; delete it to download it again"
        ) from error
    content: dict[str, Any] = {}
    for part in ("train", "test"):
        images, labels = parts.get(f"{part}_images"), parts.get(f"{part}_labels")
        if images is None or labels is None:
            raise DataError(f"{file}: has no {part}_images or no {part}_labels")
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise DataError(f"{file}: {part}_images are {images.shape} of {images.dtype}; flat pictures are needed")
        if labels.ndim == 2 and labels.shape[1] > 1:
            raise DataError(f"{file}: a picture has {labels.shape[1]} labels; data sets with one are taken")
        pixels = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        content[f"{part}_images"] = torch.from_numpy(np.ascontiguousarray(pixels))
        content[f"{part}_labels"] = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    labels = [*content["train_labels"].tolist(), *content["test_labels"].tolist()]
    return content | {"classes": [str(label) for label in range(max(labels, default=0) + 1)]}


def _download(name: str, file: Path) -> None:
    try:
        package = importlib.import_module("medmnist")
    except ImportError as error:
        raise DataError(
            f"MedMNIST's {name} is not in {file.parent}, and its package, which downloads it, is not installed: "
            f"pip install 'tune-cure[medmnist]', or put {file.name} from {PAGE} there"
        ) from error
    flag, _, size = name.partition("_")
    if flag not in package.INFO:
        raise DataError(f"data set 'medmnist:{name}': MedMNIST has {', '.join(package.INFO)}")
    kind = getattr(package, package.INFO[flag]["python_class"])
    side = int(size or 28)
    if side not in kind.available_sizes:
        sizes = ", ".join(map(str, kind.available_sizes))
        raise DataError(f"data set 'medmnist:{name}': MedMNIST has {flag} in sizes {sizes}")
    try:
        with whole_download(file) as folder:
            kind(split="train", download=True, root=str(folder), size=side)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"MedMNIST's {name} cannot be downloaded: {first_line(error)}; by hand: from {PAGE}") from error
