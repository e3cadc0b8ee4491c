"""Downloads that take their place whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune_cure.data.source import DataError


@contextmanager
def whole_download(target: Path) -> Iterator[Path]:
    """Yield a folder to download `target` into, and move it to its place when the download is complete.

    The folder is `NAME.partial` beside the target. An interrupted download stays there, and the next one goes on
    from it.

    Args:
        target: The file or the folder, which the download makes in the yielded folder under the same name.

    Raises:
        DataError: Something else is in the target's place.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target}: is there without the data set; move it away, and the data set is downloaded")
    folder = target.with_name(f"{target.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    os.replace(folder / target.name, target)
    shutil.rmtree(folder)
