"""Tiny ImageNet: 200 classes of photographs of 64×64, in the folder that its archive holds."""

from functools import partial
from pathlib import Path
from typing import Any

from tune_cure.data.downloads import whole_download
from tune_cure.data.image_folder import class_folders, is_picture, read_pictures
from tune_cure.data.source import DataError, DataSource, NotHereError

FOLDER = "tiny-imagenet-200"
ARCHIVE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CHECKSUM = "90528d7ca1a48142e341f4ef8d21d0de"


def find_tiny_imagenet(root: Path, image_size: int | None, download: bool) -> DataSource:
    """Return Tiny ImageNet in `root`, or its download. Its validation images, which have labels, are the test set.

    Args:
        root: The folder that holds tiny-imagenet-200.
        image_size: Side to resize the pictures to, in pixels; None leaves them as they are.
        download: Allow a download.

    Raises:
        NotHereError: It is not there, and a download is not allowed.
        DataError: It cannot be downloaded.
    """
    folder = root / FOLDER
    if not (folder / "train").is_dir():
        if not download:
            raise NotHereError(
                f"Tiny ImageNet is not in {root}; on first use it is downloaded into the default folder, or into the "
                f"one that --data-root names; by hand: {FOLDER}/ (from {ARCHIVE})"
            )
        _download(folder)
    return DataSource(f"Tiny ImageNet in {folder}", FOLDER, partial(_read, folder, image_size))


def _read(folder: Path, side: int | None) -> dict[str, Any]:
    train = {
        entry.name: sorted(file for file in (entry / "images").iterdir() if is_picture(file))
        for entry in class_folders(folder / "train")
    }
    test: dict[str, list[Path]] = {name: [] for name in train}
    annotations = folder / "val" / "val_annotations.txt"
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{annotations}: cannot be read: {error.strerror}") from error
    for line in lines:
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in test:
            raise DataError(f"{annotations}: names the class {label!r}, which {folder / 'train'} lacks")
        test[label].append(folder / "val" / "images" / name)
    return read_pictures({"train": train, "test": test}, side, folder)


def _download(folder: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        with whole_download(folder) as partial_folder:
            download_and_extract_archive(ARCHIVE, str(partial_folder), md5=CHECKSUM, remove_finished=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Tiny ImageNet is not in {folder.parent} and cannot be downloaded ({error}); put {FOLDER}/ from {ARCHIVE} "
            "there, or name a folder that has it with --data-root"
        ) from error
