"""Lock of a run's folder, so that one process at a time writes to it. It is released however the process ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tune_cure.utils.files import FolderError

LOCK_FILE = ".lock"
LOCK_TIMEOUT_SECONDS = 2.0  # a process that only checks the lock holds it for a moment
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # what a file system without locks answers


@contextmanager
def hold_run_lock(directory: Path, message: str = "another process is writing in it") -> Iterator[None]:
    """Hold the lock of the run in `directory` within the context. A file system without locks refuses nobody.

    Args:
        directory: The run's folder.
        message: What the error says if another process holds the lock.

    Raises:
        FolderError: Another process holds the lock, or the folder cannot be written to.
    """
    file = directory / LOCK_FILE
    if file.is_symlink() or (file.exists() and file.stat().st_nlink > 1):  # it would be emptied under its other name
        raise FolderError(f"{file}: is a link to another file; delete it")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout as error:
        raise FolderError(f"{directory}: {message}") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise FolderError(f"{file}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def is_unlocked(directory: Path) -> bool:
    """Return whether no process of this machine holds the lock; False if that is not known. Nothing is written."""
    return _is_held(directory) is False


def is_locked(directory: Path) -> bool:
    """Return whether a process of this machine holds the lock; False if that is not known. Nothing is written."""
    return _is_held(directory) is True


def _is_held(directory: Path) -> bool | None:
    """Return whether a process holds the lock; None if there is no lock, or the file system does not say."""
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
