"""Watch over a folder that a process writes to: it may be deleted, moved away or become read-only meanwhile."""

import os
import tempfile
from pathlib import Path

from tune_cure.utils.files import FolderError


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
