"""Data sets of the Hugging Face Hub, as Parquet files with their features. The extra `hf` downloads them.

The Hub keeps every public data set as such files in its branch `refs/convert/parquet`. Reading files that are there
needs no package beyond pyarrow.
"""

import importlib
import io
import json
import logging
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cure.data.downloads import whole_download
from tune_cure.data.image_folder import decode_picture, oversized_pictures_are_errors
from tune_cure.data.source import DataError, Dataset, DataSource, NotHereError
from tune_cure.utils.errors import first_line
from tune_cure.utils.formatting import join_words
from tune_cure.utils.registry import PartError

if TYPE_CHECKING:
    import pyarrow as pa

_logger = logging.getLogger(__name__)

BRANCH = "refs/convert/parquet"
TEST_PARTS = ("test", "validation", "valid")
"""Names of the split that is the test set: the first that is there and has labels."""
NO_LABELS = (-1, None)  # on the Hub, of pictures whose labels are kept secret
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def hugging_face_dataset(name: str) -> Dataset:
    """Return the data set of this name on the Hub: `mnist`, or `OWNER/NAME`.

    Raises:
        PartError: It cannot be a name.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise PartError(f"data set 'hf:{name}': a name such as hf:OWNER/NAME is needed")
    return Dataset(partial(_find, name))


def _find(name: str, root: Path, image_size: int | None, download: bool) -> DataSource:
    folder = root / "hf" / name.replace("/", "--")
    if not any(folder.rglob("*.parquet")):
        if not download:
            raise NotHereError(
                f"{name} of the Hugging Face Hub is not in {folder}; on first use it is downloaded into the default "
                f"folder, or into the one that --data-root names; by hand: the Parquet files of its branch {BRANCH}"
            )
        _download(name, folder)
    files = sorted(folder.rglob("*.parquet"))
    states = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return DataSource(f"{name} of the Hugging Face Hub in {folder}", repr(states), partial(_read, folder, image_size))


def _read(folder: Path, side: int | None) -> dict[str, Any]:
    parts = _list_splits(folder)
    if "train" not in parts:
        raise DataError(f"{folder}: has no split train; found {', '.join(parts) or 'none'}")
    content: dict[str, Any] = {}
    candidates = [part for part in TEST_PARTS if part in parts]
    test = next((part for part in candidates if _has_labels(parts[part])), None)
    if candidates and test is None:
        _logger.warning(
            "%s: no picture of %s has a label; images held out of train are the test set",
            folder,
            join_words(candidates),
        )
    with oversized_pictures_are_errors():
        for part, split in {"train": "train", **({"test": test} if test else {})}.items():
            content |= _read_split(parts[split], part, side)
    return content


def _list_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split: CONFIG/SPLIT/0000.parquet, or SPLIT-00000-of-00001.parquet."""
    splits: dict[str, list[Path]] = {}
    configs: set[str] = set()
    for file in sorted(folder.rglob("*.parquet")):
        numbered = re.fullmatch(r"(\w+?)-\d+-of-\d+", file.stem)
        split = numbered[1] if numbered else file.parent.name.removeprefix("partial-")
        configs.add(str(file.parent if numbered else file.parent.parent))
        splits.setdefault(split, []).append(file)
    if len(configs) > 1:
        names = ", ".join(sorted(Path(config).name for config in configs))
        raise DataError(f"{folder}: has several configurations ({names}); keep the folder of one")
    return splits


def _has_labels(files: list[Path]) -> bool:
    """Return whether the pictures of a split have labels."""
    return any(label not in NO_LABELS for file in files for label in _read_columns(file, with_pictures=False)[1])


def _read_columns(file: Path, *, with_pictures: bool) -> tuple[Iterable[Any], list[int], list[str]]:
    """Return the encoded pictures of a file, none unless `with_pictures`, the labels and the names of the classes."""
    import pyarrow.parquet as parquet

    try:
        picture_column, label_column, classes = _columns(file, parquet.read_schema(file))
        table = parquet.read_table(file, columns=[*[picture_column] * with_pictures, label_column])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # its metadata can hold anything
        raise DataError(f"{file}: cannot be read as a Parquet file of the Hub: {first_line(error)}") from error
    return table[picture_column] if with_pictures else (), table[label_column].to_pylist(), classes


def _read_split(files: list[Path], part: str, side: int | None) -> dict[str, Any]:
    """Return the images, the labels and the names of the classes in the files of a split."""
    import numpy as np
    import torch

    pictures: list[Any] = []
    labels: list[int] = []
    classes: list[str] = []
    for file in files:
        encoded, labels_of_file, classes = _read_columns(file, with_pictures=True)
        for index, picture in enumerate(encoded):
            content = picture.as_py()["bytes"]
            pictures.append(decode_picture(io.BytesIO(content), f"{file}: picture {index}", side).transpose(2, 0, 1))
        labels += labels_of_file
    sizes = {picture.shape[1:] for picture in pictures}
    if len(sizes) > 1:
        found = " and ".join(f"{width}×{height}" for height, width in sorted(sizes)[:2])
        raise DataError(f"{files[0]}: has pictures of {found}; pictures of different sizes need data.image_size")
    return {
        f"{part}_images": torch.from_numpy(np.stack(pictures)),
        f"{part}_labels": torch.tensor(labels, dtype=torch.int64),
        "classes": classes,
    }


def _columns(file: Path, schema: "pa.Schema") -> tuple[str, str, list[str]]:
    """Return the columns of the pictures and of the labels, and the names of the classes, as the file says."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    pictures = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    labels = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    if "label" in labels:
        labels = {"label": labels["label"]}
    if len(pictures) != 1 or len(labels) != 1:
        raise DataError(
            f"{file}: one column of pictures and one of labels are needed, but found pictures in "
            f"{', '.join(pictures) or 'none'} and labels in {', '.join(labels) or 'none'}"
        )
    ((label, names),) = labels.items()
    return pictures[0], label, list(names)


def _download(name: str, folder: Path) -> None:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DataError(
            f"{name} of the Hugging Face Hub is not in {folder}, and the package that downloads it is not installed: "
            "pip install 'tune-cure[hf]'"
        ) from error
    try:
        with whole_download(folder) as partial_folder:
            hub.snapshot_download(
                name,
                repo_type="dataset",
                revision=BRANCH,
                allow_patterns="*.parquet",
                local_dir=str(partial_folder / folder.name),
            )
    except Exception as error:  # no network, no such data set, no permission: the package has an error for each
        raise DataError(f"{name} of the Hugging Face Hub cannot be downloaded: {first_line(error)}") from error
