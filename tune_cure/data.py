"""Data sets as uint8 tensors: found or downloaded, prepared once into one file, split, batched on the device.

Every data set becomes one file in the cache folder (`~/.cache/tune_cure/prepared`, or below `$TUNE_CURE_CACHE`), which
each process maps into memory: the trials of a machine share one copy of the images through the page cache.

To add a data set: write a function that finds it, add a line to `DATASETS`.
"""

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from tune_cure.schema import Schema, one_of

FORMAT = "1"  # of the prepared files: a change of it prepares every data set anew
TEST_SEED = 0  # of the test sets that data sets do not bring themselves
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_logger = logging.getLogger(__name__)


class DataError(ValueError):
    """Data that cannot be found or used. Its text is one line: what was found, where, what is allowed."""


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
    """An entry of `DATASETS`. `find` takes the specification, its folder, and whether a download is allowed."""

    find: Callable[["DataSpec", Path, bool], Found]
    augmentation: Augmentation | None = None  # None: an eighth of the side as padding, and flips


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

    def to(self, device: torch.device | str) -> "Splits":
        """These splits with training and validation images on `device`, moved once; the test set stays where it is."""
        train = self.train.to(device)
        return replace(self, train=train, validation=replace(train, indices=self.validation.indices.to(device)))


def load(spec: "DataSpec", *, download: bool = True) -> Splits:
    """The data set that `spec` names, split as it says.

    Args:
        spec: Which data, from where, how split.
        download: Whether a data set that is not there may be downloaded into its folder.

    Raises:
        DataError: It can neither be found nor downloaded, or it cannot be split so.
    """
    root = Path(spec.root).expanduser()
    dataset = DATASETS[spec.dataset]
    content = _prepared(spec, root, dataset, download)
    train_labels = content["train_labels"]
    rest = torch.arange(len(train_labels))
    train = Examples(content["train_images"], train_labels, rest)
    if "test_images" in content:
        test = Examples(content["test_images"], content["test_labels"], torch.arange(len(content["test_labels"])))
    else:
        test, train = _hold_out(train, spec.validation, TEST_SEED, len(content["classes"]), "the test set")
    validation, train = _hold_out(train, spec.validation, spec.split_seed, len(content["classes"]), "data.validation")
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


def _hold_out(examples: Examples, count: int, seed: int, num_classes: int, what: str) -> tuple[Examples, Examples]:
    """`count` stratified examples, and the others in their order."""
    if not num_classes <= count <= len(examples) - num_classes:
        raise DataError(
            f"{what}: {count} images are to be held out of {len(examples)} training images; between {num_classes} "
            f"(one a class) and {len(examples) - num_classes} can be"
        )
    held = examples.subset(count, seed)
    stays = torch.ones(len(examples.images), dtype=torch.bool)
    stays[held.indices] = False
    return held, replace(examples, indices=examples.indices[stays[examples.indices]])


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """(count,) positions in `labels`, each class in its share (largest remainders), sorted; always the same for a seed."""
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


# The prepared file


def cache_folder() -> Path:
    """Where prepared data lies: `$TUNE_CURE_CACHE`, or `~/.cache/tune_cure`."""
    return Path(os.environ.get("TUNE_CURE_CACHE", "~/.cache/tune_cure")).expanduser()


def _prepared(spec: "DataSpec", root: Path, dataset: Dataset, download: bool) -> dict[str, Any]:
    """The content of the data set's prepared file, mapped into memory; the file is made first if need be."""
    folder = cache_folder() / "prepared"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); set TUNE_CURE_CACHE to a writable one") from error
    place = hashlib.sha256(repr((spec.dataset, str(root.resolve()), spec.image_size)).encode()).hexdigest()[:12]
    prefix = f"{spec.dataset}-{place}"
    # Two processes must neither download nor prepare at once; the second finds what the first has made.
    with FileLock(folder / f"{prefix}.lock"):
        found = dataset.find(spec, root, download)
        state = hashlib.sha256(f"{FORMAT} {found.fingerprint}".encode()).hexdigest()[:12]
        path = folder / f"{prefix}-{state}.pt"
        content = _open(path)
        if content is None:
            content = _prepare(spec, found)
            partial_path = path.with_suffix(".partial")
            torch.save(content, partial_path)
            os.replace(partial_path, path)
            for stale in folder.glob(f"{prefix}-*.pt"):
                if stale != path:
                    stale.unlink()
            content = _open(path)
            assert content is not None
    return content


def _open(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # what torch says of a truncated or foreign file
        _logger.warning("%s: is damaged (%s) and is made anew", path, str(error).splitlines()[0])
        return None
    return content


def _prepare(spec: "DataSpec", found: Found) -> dict[str, Any]:
    content = found.read()
    if spec.image_size is not None:
        for name in ("train_images", "test_images"):
            if name in content and content[name].shape[-2:] != (spec.image_size, spec.image_size):
                content[name] = _resize(content[name], spec.image_size)
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


# Finding data sets


def _find_digits(spec: "DataSpec", root: Path, download: bool) -> Found:
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
    name: str, title: str, marker: str, read: Callable[[Path], dict[str, Any]], spec: "DataSpec", root: Path,
    download: bool,
) -> Found:  # fmt: skip
    """A data set of torchvision: its own files in `root` (`marker` is one), pictures in class folders, or a download."""
    if not (root / marker).exists() and (root / "train").is_dir():
        found = _find_image_folder(spec, root, download)
        return replace(found, source=f"{title}, pictures in {root}")
    if not (root / marker).exists() and not download:
        raise DataError(f"{title} is not in {root}; it will be downloaded there on first use")
    return Found(f"{title}, canonical files in {root}", marker, partial(_read_or_explain, title, root, read))


def _read_or_explain(title: str, root: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    _logger.info("preparing %s in %s: done once", title, root)
    try:
        return read(root)
    except (OSError, RuntimeError) as error:  # no network, no permission, a full disk; a wrong checksum
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{title} is not in {root} and cannot be downloaded ({reason}); put its files there, or name a folder that "
            "has them, or train/CLASS and test/CLASS pictures, with --data-root"
        ) from error


def _read_cifar(name: str, root: Path) -> dict[str, Any]:
    from torchvision import datasets

    parts = {part: getattr(datasets, name)(root, train=part == "train", download=True) for part in ("train", "test")}
    content = {"classes": list(parts["train"].classes)}
    for part, dataset in parts.items():
        content[f"{part}_images"] = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        content[f"{part}_labels"] = torch.tensor(dataset.targets)
    return content


def _read_svhn(root: Path) -> dict[str, Any]:
    from torchvision import datasets

    content: dict[str, Any] = {"classes": [str(digit) for digit in range(10)]}
    for part in ("train", "test"):
        dataset = datasets.SVHN(root, split=part, download=True)
        content[f"{part}_images"] = torch.from_numpy(dataset.data).contiguous()
        content[f"{part}_labels"] = torch.from_numpy(dataset.labels.astype(np.int64))
    return content


def _find_image_folder(spec: "DataSpec", root: Path, download: bool) -> Found:
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
    fingerprint = repr([(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in files])
    return Found(f"pictures in {root}", fingerprint, partial(_read_image_folder, listings, spec.image_size, root))


def _list(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its picture files, both sorted; hidden files and folders are passed over."""
    listing = {
        entry.name: sorted(file for file in entry.iterdir() if _is_picture(file))
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if len(listing) < 2:
        raise DataError(f"{folder}: has {len(listing)} class folders; a folder for each of two classes or more is needed")
    for name, files in listing.items():
        if not files:
            raise DataError(f"{folder / name}: has no pictures; allowed are {', '.join(EXTENSIONS)}")
    return listing


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
                        f"{files[index]}: is {picture.shape[1]}×{picture.shape[0]}, but {first} is {size[1]}×{size[0]}; "
                        "pictures of different sizes need data.image_size"
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
    except (UnidentifiedImageError, OSError) as error:
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
        partial(_find_torchvision, "CIFAR10", "CIFAR-10", "cifar-10-batches-py", partial(_read_cifar, "CIFAR10")), _CIFAR
    ),
    "cifar100": Dataset(
        partial(_find_torchvision, "CIFAR100", "CIFAR-100", "cifar-100-python", partial(_read_cifar, "CIFAR100")), _CIFAR
    ),
    "svhn": Dataset(
        partial(_find_torchvision, "SVHN", "SVHN", "train_32x32.mat", _read_svhn), Augmentation(padding=4, flip=False)
    ),
    "image_folder": Dataset(_find_image_folder),
}


class DataSpec(Schema):
    """Which data, from where, and how it is split."""

    dataset: Annotated[str, one_of(DATASETS)] = Field(description="The data set.")
    root: str = Field(default="~/.cache/tune_cure", description="Folder of its files, or to download it into.")
    validation: int = Field(default=5000, ge=1, description="Training images held out, stratified, to judge a search on.")
    split_seed: int = Field(default=0, ge=0, description="Which images these are.")
    train_examples: int | None = Field(default=None, ge=2, description="Train on so many of the others; all if absent.")
    image_size: int | None = Field(default=None, ge=4, description="Resize images to this side; as they are if absent.")
