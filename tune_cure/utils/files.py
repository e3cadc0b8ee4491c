"""Files that readers never see half of, and that a power cut leaves whole: as they were or as they are to be."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tune_cure.utils.errors import TuneCureError


def replace_text(path: Path, text: str) -> None:
    """Writes a text file in one step."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one step."""
    with _partial(path) as file:
        file.write(content)


def replace_tensors(path: Path, content: dict[str, Any]) -> None:
    """Writes, in one step, what `torch.load` reads with `weights_only=True`: tensors and plain values."""
    with _partial(path) as file:
        torch.save(content, file)


def replace_arrays(path: Path, content: Mapping[str, Any]) -> None:
    """Write arrays by their names, compressed and in one step, as `np.load` reads them."""
    import numpy as np  # few commands write arrays

    with _partial(path) as file:
        np.savez_compressed(file, **content)


@contextmanager
def _partial(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is written to the disk; nothing is left where that fails.

    Its name is its writer's own: another may write the same file at the same time, and the last of them counts.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_to_disk(path: Path) -> None:
    """Waits until what was written to a file, by whichever process, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderError(TuneCureError):
    """A folder that a run cannot be written to, or that holds what a run cannot continue from."""


def read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """What `replace_tensors` wrote, with its tensors on `device`.

    Raises:
        FolderError: The file is damaged, or of something else.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # whatever its parser stumbles over: of struct, of pickle, of zip files
        raise FolderError(f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise FolderError(f"{path}: is no checkpoint of a run")
    return content


def make_run_folder(default: Path, named: Path | None) -> Path:
    """Makes a run's folder: a default name that is taken gets a number, one that the user named must be free.

    Raises:
        FolderError: The named folder has something in it, or cannot be made.
    """
    if named is not None:
        if named.exists() and (not named.is_dir() or any(named.iterdir())):
            raise FolderError(f"{named}: is not empty; name another --output, or continue what is there with --resume")
        return _made(named)
    number, folder = 1, default
    while os.path.lexists(folder):
        number += 1
        folder = default.with_name(f"{default.name}-{number}")
    return _made(folder)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder
