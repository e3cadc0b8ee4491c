"""Record of the files that were made from others, so that a file is made again only if it would come out different.

A command that rebuilds a run's files leaves out the slow ones whose inputs are those of last time.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from tune_cure.utils.files import replace_text


def digest(*inputs: object) -> str:
    """Return the SHA-256 digest of some inputs: of the bytes of a file for a path, else of the input's text.

    Raises:
        OSError: A file cannot be read.
    """
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            with item.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        else:
            total.update(hashlib.sha256(str(item).encode("utf-8", "backslashreplace")).digest())
    return total.hexdigest()


class MadeFiles:
    """Digests of the files below a folder, and of what each was made from.

    Args:
        record: The file of the record, in the folder. A record that is missing or damaged knows of no file.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):  # it can be made anew
            content = {}
        self._digests: dict[str, object] = content if isinstance(content, dict) else {}

    def is_current(self, file: Path, source: str) -> bool:
        """Return whether a file is there as it was made, from inputs with the digest `source`."""
        known = self._digests.get(self._name(file))
        return known is not None and file.is_file() and known == [source, digest(file)]

    def add(self, file: Path, source: str) -> None:
        """Record that a file has been made from inputs with the digest `source`."""
        self._digests[self._name(file)] = [source, digest(file)]

    def remove(self, file: Path) -> None:
        """Delete a file if it is there as it was made, and forget it; one that somebody has changed stays."""
        known = self._digests.pop(self._name(file), None)
        if isinstance(known, list) and file.is_file() and digest(file) in known[1:]:
            file.unlink()

    def remove_others(self, folder: Path, kept: Collection[Path]) -> None:
        """Delete the recorded files in a folder that are not made any more, as `remove` does.

        Args:
            folder: The folder. Nothing is deleted elsewhere: somebody may have sent the record.
            kept: The files that are made now.
        """
        recorded = [self._record.parent / name for name in self._digests]
        for file in recorded:
            if file.parent == folder and file.name != ".." and file not in kept:
                self.remove(file)

    def write(self) -> None:
        """Write the record."""
        replace_text(self._record, json.dumps(self._digests, indent=1) + "\n")

    def _name(self, file: Path) -> str:
        return file.relative_to(self._record.parent).as_posix()
