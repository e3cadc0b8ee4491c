"""Storage of a run's files and its trials' checkpoints: a local folder, or a folder and an object store.

While a search runs, its folder on the driver's machine is the truth. With an object store (`s3://…`, or what else
pyarrow knows) the checkpoints alone lie there. The journal is copied there at intervals, and all files at the end. A
checkpoint is deleted only after a copy of the journal that does not need it, so that the search can be continued from
the store at any time.
"""

import logging
import math
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow
from pyarrow import fs

from tune_cure.search import run_files
from tune_cure.search.journal import Event, Journal
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import FolderError, read_tensors

INTERVAL = 60.0  # seconds between two copies
COPIED_FOLDERS = (run_files.FIGURES, run_files.TENSORBOARD)

OnEvent = Callable[[Event], None]

_logger = logging.getLogger(__name__)


class RunStorage(ABC):
    """Files of a run.

    Attributes:
        folder: The run's folder on this machine, as an absolute path, because workers have other working folders.
        checkpoint_uri: The URI that the paths of checkpoints are relative to; None if they are relative to `folder`.
    """

    folder: Path
    checkpoint_uri: str | None = None

    @property
    @abstractmethod
    def output(self) -> str:
        """The --output that names this storage."""

    @property
    @abstractmethod
    def checkpoint_root(self) -> str:
        """The folder that checkpoints are in, as Ray names it in their paths."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of this name where checkpoints are kept."""

    @abstractmethod
    def delete_file(self, path: str) -> None:
        """Delete a file by its path relative to `checkpoint_root`; an object store does after its next copy.

        Raises:
            OSError: It cannot be deleted.
        """

    @abstractmethod
    def locate_checkpoint(self, path: str) -> str | None:
        """Return the path or URI by which each machine of the search finds a checkpoint's folder; None if it is gone.

        Args:
            path: The path in the checkpoint's event.

        Raises:
            JournalError: The path leads out of the run's folder: a run that somebody sent must not do that.
            FolderError: The checkpoint is damaged.
        """

    def copy_while_running(self, on_event: OnEvent) -> OnEvent:
        """Return `on_event`, followed by a copy of the run's files where copies are kept and one is due."""
        return on_event

    def fetch_checkpoint(self, path: str) -> Path:
        """Return the file of a checkpoint in `folder`, copied there first if it is kept elsewhere; it may not exist.

        Raises:
            JournalError: The path leads out of the run's folder: a run that somebody sent must not do that.
        """
        return Journal(self.folder).checkpoint_file(path)

    @abstractmethod
    def copy_all(self) -> None:
        """Copy the run's files to where copies are kept, at the end of a session.

        Raises:
            FolderError: That failed; all files are in `folder`.
        """

    def unused_name(self, name: str) -> str:
        """Return `name`, or `name-2` and so on: each session of a search gives its trials a folder of their own."""
        taken, unused = 1, name
        while self.exists(unused):
            taken += 1
            unused = f"{name}-{taken}"
        return unused


class LocalStorage(RunStorage):
    """A run whose files are all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._named = folder

    @property
    def output(self) -> str:
        """The --output that names this storage."""
        return str(self._named)

    @property
    def checkpoint_root(self) -> str:
        """The folder that checkpoints are in."""
        return str(self.folder)

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of this name."""
        return (self.folder / name).exists()

    def delete_file(self, path: str) -> None:
        """Delete a file by its path relative to the run's folder."""
        (self.folder / path).unlink()

    def locate_checkpoint(self, path: str) -> str | None:
        """Return the path of a checkpoint's folder; None if it is gone."""
        file = Journal(self.folder).checkpoint_file(path)
        if not file.exists():
            return None
        read_tensors(file, "cpu")
        return str(file.parent)

    def copy_all(self) -> None:
        """Copy nothing: no copies are kept."""


class ObjectStore:
    """A folder in an object store, by its URI.

    Raises:
        FolderError: There is no such store, or it cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            self.files, self.path = fs.FileSystem.from_uri(self.uri)
            self.files.create_dir(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise FolderError(f"--output {uri}: cannot be used: {first_line(error)}") from error

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of this name."""
        info = self.files.get_file_info(f"{self.path}/{name}")
        return bool(info.type != fs.FileType.NotFound)

    def find_original(self, folders: Iterable[Path]) -> Path | None:
        """Return the first folder of a run whose journal begins with the store's copy of it; None if there is none."""
        with self.files.open_input_stream(f"{self.path}/{run_files.JOURNAL}") as stream:
            copied = stream.read()
        for folder in folders if copied else ():
            with suppress(OSError), (folder / run_files.JOURNAL).open("rb") as journal:
                if journal.read(len(copied)) == copied:
                    return folder
        return None

    def get_run(self, folder: Path) -> None:
        """Copy the files of the run in the store into `folder`, without its trials' checkpoints.

        Raises:
            FolderError: There is no run.
        """
        if not self.exists(run_files.JOURNAL):
            raise FolderError(f"{self.uri}: holds no search: there is no {run_files.JOURNAL} in it")
        self.get("", folder)

    def get(self, path: str, folder: Path) -> None:
        """Copy the files of the folder at `path`, relative to the store's, into a folder on this machine."""
        source = f"{self.path}/{path}" if path else self.path
        for info in self.files.get_file_info(fs.FileSelector(source)):
            if info.is_file:
                target = str(folder / info.base_name)
                fs.copy_files(info.path, target, source_filesystem=self.files, destination_filesystem=_local())

    def put(self, path: Path) -> None:
        """Copy a file, or a folder with all that is in it, into the store."""
        target = f"{self.path}/{path.name}"
        if path.is_dir():
            self.files.create_dir(target)
        fs.copy_files(str(path), target, source_filesystem=_local(), destination_filesystem=self.files)


class UriStorage(RunStorage):
    """A run in a local folder whose checkpoints, and copies of whose other files, are in an object store.

    Args:
        store: The object store.
        folder: The run's folder on this machine.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store, self.folder = store, folder.resolve()
        self.checkpoint_uri = store.uri
        self._copied = -math.inf  # the first event is copied at once: from then on the store holds a search
        self._uploader = ThreadPoolExecutor(1)
        self._upload: Future[None] | None = None
        self._useless: list[str] = []  # files to delete after the next copy of the journal

    def __reduce__(self) -> tuple[type["UriStorage"], tuple[ObjectStore, Path]]:
        return UriStorage, (self.store, self.folder)  # Ray pickles all that it is given, but no thread can be pickled

    @property
    def output(self) -> str:
        """The --output that names this storage."""
        return self.store.uri

    @property
    def checkpoint_root(self) -> str:
        """The path of the store's folder."""
        return str(self.store.path)

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of this name in the store."""
        return self.store.exists(name)

    def delete_file(self, path: str) -> None:
        """Delete a file in the store, by its path relative to the store's folder, after the next copy of the journal.

        Until then the search, if this process died, would be continued from the copy before, which may need the file.
        """
        self._useless.append(path)

    def locate_checkpoint(self, path: str) -> str | None:
        """Return the URI of a checkpoint's folder; None if it is gone. An object store never shows half of a file."""
        Journal(self.folder).checkpoint_file(path)
        if not self.store.exists(f"{path}/{run_files.CHECKPOINT}"):
            return None
        base, mark, query = self.store.uri.partition("?")  # s3://bucket/run?region=…
        return f"{base}/{path}{mark}{query}"

    def copy_while_running(self, on_event: OnEvent) -> OnEvent:
        """Return `on_event`, followed by a copy if it is time: between two events, so that it is of one state."""

        def copy_afterwards(event: Event) -> None:
            on_event(event)
            is_uploading = self._upload is not None and not self._upload.done()
            if time.monotonic() - self._copied >= INTERVAL and not is_uploading:
                self._copied = time.monotonic()
                useless, self._useless = self._useless, []
                try:
                    snapshot = _snapshot(self.folder)
                except OSError as error:  # of the folder for temporary files: no fault of the journal
                    self._postpone(useless, error)
                else:
                    self._upload = self._uploader.submit(self._upload_and_remove, snapshot, useless)

        return copy_afterwards

    def fetch_checkpoint(self, path: str) -> Path:
        """Return the file of a checkpoint in the run's folder, copied there from the store."""
        file = super().fetch_checkpoint(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.store.get(path, file.parent)
        return file

    def finish_copies(self) -> None:
        """Wait for a copy that is under way; no further one is begun."""
        self._uploader.shutdown()

    def copy_all(self) -> None:
        """Copy the run's files and `COPIED_FOLDERS` into the store, without the lock, which is of this machine.

        Raises:
            FolderError: That failed; all files but checkpoints are in `folder`.
        """
        self.finish_copies()
        try:
            for path in sorted(self.folder.iterdir()):
                if path.name in COPIED_FOLDERS or (path.is_file() and not path.name.startswith(".")):
                    self.store.put(path)
        except OSError as error:
            message = f"{self.output}: cannot be written: {error}; all but checkpoints is in {self.folder}"
            raise FolderError(message) from error
        self._delete(self._useless)

    def _upload_and_remove(self, folder: Path, useless: list[str]) -> None:
        """Copy a snapshot of the run's files into the store; delete it, and the files that the copy does not need."""
        try:
            for file in sorted(folder.iterdir()):
                self.store.put(file)
        except OSError as error:
            self._postpone(useless, error)
        else:
            self._delete(useless)
        finally:
            shutil.rmtree(folder)

    def _postpone(self, useless: list[str], error: OSError) -> None:
        """Warn that a copy failed. The next one may succeed, and the last one raises its error."""
        _logger.warning("%s: a copy failed: %s", self.output, error)
        self._useless.extend(useless)

    def _delete(self, paths: list[str]) -> None:
        for path in paths:
            try:
                self.store.files.delete_file(f"{self.store.path}/{path}")
            except FileNotFoundError:
                pass  # deleted by an interrupted session
            except OSError as error:
                _logger.warning("%s/%s: cannot be deleted: %s", self.output, path, error)


def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


def _snapshot(folder: Path) -> Path:
    """Return a temporary folder with a copy of all files that a search is continued from."""
    copy = Path(tempfile.mkdtemp(prefix="tune_cure-"))
    try:
        for file in folder.iterdir():
            if file.name == run_files.JOURNAL or file.suffix in (".yaml", ".json"):
                shutil.copy2(file, copy)
    except OSError:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return copy
