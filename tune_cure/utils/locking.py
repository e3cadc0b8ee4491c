"""One process at a time writes a run: it holds a lock in the folder, which the system takes back however it ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tune_cure.utils.files import FolderError

LOCK_FILE = ".lock"
LOCK_TIMEOUT_SECONDS = 2.0  # to wait for it: who only looks whether it is held holds it for a moment
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of a file system that has none


@contextmanager
def hold_run_lock(directory: Path, said: str = "another process is writing in it") -> Iterator[None]:
    """While in this context no other process that asks for it can go on with the run in `directory`.

    On a file system without locks nothing is known of others, and nobody is refused.

    Raises:
        FolderError: Another process has the lock, which `said` says; or the folder cannot be written to.
    """
    lock = FileLock(directory / LOCK_FILE)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout as error:
        raise FolderError(f"{directory}: {said}") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise FolderError(f"{directory / LOCK_FILE}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def is_unlocked(directory: Path) -> bool:
    """Whether no process of this machine holds the lock; False if that is not known. Nothing is written."""
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
