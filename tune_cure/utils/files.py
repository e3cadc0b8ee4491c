"""Files that are replaced in one step, and the folders of runs.

A reader of a replaced file, or a power cut, finds the old content or the new one, never a part.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.formatting import one_line

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

HEAD = 1000  # bytes at the beginning of a file, by which its kind is known
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_PATH_FAULTS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


def replace_text(path: Path, text: str) -> None:
    """Replace the content of a text file in one step."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace the content of a file in one step."""
    with _partial(path) as file:
        file.write(content)


def replace_tensors(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one step by tensors and plain values that `torch.load(weights_only=True)` reads."""
    import torch  # few commands read or write tensors

    with _partial(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # of a full disk, which torch's own message does not name
                raise error.__context__ from None
            raise


def replace_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace a file in one step by a state dict in the safetensors format.

    The format has no place for some kinds of tensors, as sparse ones. Then no file is left, and a warning is logged.
    """
    import torch
    from safetensors.torch import save

    def copy(tensor: torch.Tensor) -> torch.Tensor:  # in memory of its own, which the format demands
        return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)

    try:
        content = save({name: copy(tensor) for name, tensor in weights.items()})
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        _logger.warning("%s: left out: a tensor is of a kind that safetensors cannot hold: %s", path, first_line(error))
        path.unlink(missing_ok=True)
    else:
        replace_bytes(path, content)


def replace_arrays(path: Path, content: Mapping[str, Any]) -> None:
    """Write arrays by their names, compressed and in one step, as `np.load` reads them."""
    import numpy as np  # few commands write arrays

    with _partial(path) as file:
        np.savez_compressed(file, **content)


def write_new_text(path: Path, text: str) -> None:
    """Write a text file that is not there yet.

    Raises:
        FolderError: It is there already, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from error


def refuse_foreign_file(flag: str, path: Path, mark: str) -> None:
    """Refuse a file that is there already, unless the command that replaces it has written it.

    Args:
        flag: The flag that names it.
        path: The file.
        mark: A text near the beginning of what the command writes.

    Raises:
        FolderError: It is a file of another kind.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        begin = file.read(HEAD)
    if begin and mark.encode() not in begin:
        raise FolderError(f"{flag} {path}: is a file of another kind, and is not replaced; name another file")


@contextmanager
def _partial(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` once it is on the disk. If writing it fails, the new file is deleted.

    An OSError names `path`.

    The new file has a random name, because two processes may write the same file at once; the last one counts.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # a file system that is read-only denies it, also where there is no file
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)
        raise


def describe_disk_fault(error: OSError) -> str:
    """Return in one line which file a full disk, or one that denies access, refuses; empty for another error."""
    return _describe(error) if error.errno in _DISK_FAULTS else ""


def describe_path_fault(error: OSError) -> str:
    """Return in one line which path no file can have: too long, through a file, or links in a circle; else empty."""
    return _describe(error) if error.errno in _PATH_FAULTS else ""


def _describe(error: OSError) -> str:
    return one_line(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


def sync_to_disk(path: Path) -> None:
    """Wait until the content of a file, whichever process wrote it, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DiskError(TuneCureError):
    """A disk that is full, or denies access, after a command has begun to write."""

    exit_code = 1


class FolderError(TuneCureError):
    """A folder that a run cannot be written to, or that holds what a run cannot continue from."""


def read_tensors(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Read a file that `replace_tensors` wrote, with its tensors on `device`.

    Raises:
        FolderError: The file is damaged, or holds something else.
    """
    import torch

    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror or first_line(error)}") from error
    except Exception as error:  # a damaged file makes struct, pickle or zipfile raise errors of any kind
        # torch's own text advises to set weights_only=False, which would run the code of whoever sent the file.
        reason = "it is damaged, or holds more than tensors and plain values"
        raise FolderError(f"{path}: cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise FolderError(f"{path}: is no checkpoint of a run")
    return content


def refuse_foreign_links(folder: Path) -> None:
    """Refuse a run's folder in which a link leads out of it, at any depth.

    Somebody may have sent the folder. Files elsewhere would be read, or written over, in the place of its own. A pipe
    or a device is refused, too: reading it might never end.

    Raises:
        FolderError: There is such a link, pipe or device, or a folder cannot be read.
    """
    root, pending = folder.resolve(), [str(folder)]
    while pending:
        inner = pending.pop()
        try:
            with os.scandir(inner) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        _refuse_foreign(Path(entry.path), root)
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                        raise FolderError(f"{entry.path}: is neither a file nor a folder")
        except FileNotFoundError:
            pass  # a search that runs deletes checkpoints
        except OSError as error:
            raise FolderError(f"{inner}: cannot be read: {error.strerror}") from error


def _refuse_foreign(link: Path, root: Path) -> None:
    """Refuse a link that leads out of `root`, or nowhere because it leads to itself."""
    try:
        is_inside = link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links, or one that cannot be followed
        is_inside = False
    if not is_inside:
        raise FolderError(f"{link}: is a link that leads out of the run's folder")


def make_run_folder(default: Path, named: Path | None, is_free: Callable[[Path], bool] = lambda folder: False) -> Path:
    """Make the folder of a run, and return it.

    Args:
        default: The folder if the user named none; if it exists, a number is appended to its name.
        named: The folder that the user named; it must be empty or not exist yet. None if the user named none.
        is_free: Returns whether a folder that is not empty may be taken all the same.

    Raises:
        FolderError: The named folder is not empty, or the folder cannot be made.
    """
    return make_folder(choose_run_folder(default, named, is_free))


def choose_run_folder(
    default: Path, named: Path | None, is_free: Callable[[Path], bool] = lambda folder: False
) -> Path:
    """Return the folder that `make_run_folder` would make, and make nothing.

    Raises:
        FolderError: The named folder is not empty.
    """
    if named is not None:
        if named.exists() and not named.is_dir():
            raise FolderError(f"--output {named}: is a file; a folder is needed")
        if named.exists() and any(named.iterdir()) and not is_free(named):
            raise FolderError(f"{named}: is not empty; name another --output, or continue what is there with --resume")
        return named
    number, folder = 1, default
    while os.path.lexists(folder) and not is_free(folder):
        number += 1
        folder = default.with_name(f"{default.name}-{number}")
    return folder


def make_folder(folder: Path) -> Path:
    """Make a folder that may be there already, and return it.

    Raises:
        FolderError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder


class LostFolderError(FolderError):
    """A run's folder that was deleted or moved away while the run was writing to it."""

    exit_code = 1


class FolderWatch:
    """Watch over the folder of a file that lasts as long as the folder is used.

    A folder that somebody makes anew in the place of the first one is another folder: the file is not in it.

    Args:
        file: The file. If it is not there yet, its absence is no fault.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.folder = file, file.parent
        self._has_file = file.exists()
        self._number = self.folder.stat().st_ino

    def is_lost(self) -> bool:
        """Return whether the folder was deleted or moved away."""
        try:
            return self.folder.stat().st_ino != self._number or (self._has_file and not self.file.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # it is there, but cannot be read

    def find_fault(self) -> str:
        """Return in words why nothing can be written into the folder; empty if it can."""
        if self.is_lost():
            return f"{self.folder} was deleted or moved away"
        paths = [self.folder, self.file] if self._has_file else [self.folder]
        if all(os.access(path, os.W_OK) for path in paths):
            return ""
        try:  # some network file systems answer the question wrongly
            with tempfile.TemporaryFile(dir=self.folder), self.file.open("ab"):
                return ""
        except OSError as error:
            return f"{self.folder} cannot be written to: {error.strerror}"
