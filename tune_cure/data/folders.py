"""Default folders on this machine: of downloaded data, and of prepared data."""

import os
from pathlib import Path

from tune_cure.data.source import DataError

DEFAULT_ROOT = "~/.cache/tune_cure"
"""Name of the default folder of data in a YAML file, wherever that folder is."""


def data_folder() -> Path:
    """Return the default folder of data: `$TUNE_CURE_DATA`, else `tune_cure` in the user's cache.

    Raises:
        DataError: See `cache_folder`.
    """
    return _read_variable("TUNE_CURE_DATA") or _user_cache()


def cache_folder() -> Path:
    """Return the folder of prepared data: `$TUNE_CURE_CACHE`, else `tune_cure` in the user's cache.

    Raises:
        DataError: The variable's path is relative. Trials work in folders of their own, so each would use
            another one.
    """
    return _read_variable("TUNE_CURE_CACHE") or _user_cache()


def folder_of(root: str) -> Path:
    """Return the folder that a key `data.root` means on this machine.

    Raises:
        DataError: It is the default folder, which a variable names by a relative path.
    """
    return data_folder() if root == DEFAULT_ROOT else Path(root).expanduser()


def is_default(root: str) -> bool:
    """Return whether a folder is the default folder of data, into which data is downloaded, or lies in it."""
    return Path(os.path.realpath(folder_of(root))).is_relative_to(os.path.realpath(data_folder()))


def _read_variable(name: str) -> Path | None:
    """Return the folder that a variable of the environment names; None if it is not set, or empty."""
    text = os.environ.get(name, "")
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_absolute():
        raise DataError(f"{name}: {text!r} is relative; an absolute path is needed")
    return folder


def _user_cache() -> Path:
    """Return `tune_cure` in `$XDG_CACHE_HOME` or `~/.cache`; a relative path there is ignored, as its standard says."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(named) if os.path.isabs(named) else Path("~/.cache").expanduser()
    return folder / "tune_cure"
