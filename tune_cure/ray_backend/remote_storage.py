"""A run's folder in an object store (`s3://…`, or what else pyarrow knows): copies of it, out and back.

While a search runs its folder on the driver's machine is the truth; the trials' checkpoints alone are in the store.
The journal is copied there at intervals, and all files at the end.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow
from pyarrow import fs

from tune_cure.search import run_files
from tune_cure.search.journal import Event
from tune_cure.utils.files import FolderError

INTERVAL = 60.0  # seconds between two copies

_logger = logging.getLogger(__name__)


class RemoteStorage:
    """The folder at `uri`.

    Raises:
        FolderError: There is no such store, or it cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            self.files, self.path = fs.FileSystem.from_uri(self.uri)
            self.files.create_dir(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise FolderError(f"--output {uri}: cannot be used: {str(error).splitlines()[0]}") from error
        self.copied = time.monotonic()
        self.uploader = ThreadPoolExecutor(1)
        self.upload: Future[None] | None = None

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        found: bool = self.files.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound
        return found

    def copies(self, folder: Path, on_event: Callable[[Event], None]) -> Callable[[Event], None]:
        """`on_event`, after which the run in `folder` is copied if it is time: between two events, so in one state."""

        def then_copy(event: Event) -> None:
            on_event(event)
            uploading = self.upload is not None and not self.upload.done()
            if time.monotonic() - self.copied >= INTERVAL and not uploading:
                self.copied = time.monotonic()
                self.upload = self.uploader.submit(self._upload_and_remove, _snapshot(folder))

        return then_copy

    def put(self, folder: Path) -> None:
        """Copies all files of the run in `folder` there.

        Raises:
            FolderError: That failed; all is in `folder`.
        """
        self.uploader.shutdown()
        try:
            for file in sorted(folder.iterdir()):
                if file.is_file() and not file.name.startswith("."):  # the lock is of this machine
                    self._put(file)
        except OSError as error:
            raise FolderError(f"{self.uri}: cannot be written: {error}; all but checkpoints is in {folder}") from error

    def get(self, folder: Path) -> None:
        """Copies the files of the run there into `folder`, without its trials' checkpoints.

        Raises:
            FolderError: There is no run.
        """
        if not self.exists(run_files.JOURNAL):
            raise FolderError(f"{self.uri}: holds no search: there is no {run_files.JOURNAL} in it")
        for found in self.files.get_file_info(fs.FileSelector(self.path)):
            if found.is_file:
                self._get(found.path, folder / found.base_name)

    def get_checkpoint(self, folder: Path, path: str) -> None:
        """Copies the checkpoint at `path`, relative to the run's folder, into the run in `folder`."""
        (folder / path).mkdir(parents=True, exist_ok=True)
        for found in self.files.get_file_info(fs.FileSelector(f"{self.path}/{path}")):
            if found.is_file:
                self._get(found.path, folder / path / found.base_name)

    def _get(self, path: str, file: Path) -> None:
        fs.copy_files(path, str(file), source_filesystem=self.files, destination_filesystem=fs.LocalFileSystem())

    def _put(self, file: Path) -> None:
        target = f"{self.path}/{file.name}"
        fs.copy_files(str(file), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.files)

    def _upload_and_remove(self, folder: Path) -> None:
        try:
            for file in sorted(folder.iterdir()):
                self._put(file)
        except OSError as error:  # the next copy may succeed, and the last says if it fails
            _logger.warning("%s: a copy failed: %s", self.uri, error)
        finally:
            shutil.rmtree(folder)


def _snapshot(folder: Path) -> Path:
    """A copy, in a temporary folder, of all that a search is continued from."""
    copy = Path(tempfile.mkdtemp(prefix="tune_cure-"))
    for file in folder.iterdir():
        if file.name == run_files.JOURNAL or file.suffix in (".yaml", ".json"):
            shutil.copy2(file, copy)
    return copy
