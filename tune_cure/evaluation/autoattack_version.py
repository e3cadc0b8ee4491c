"""Version of AutoAttack that judged networks: recorded with their outcomes, and named beside their accuracies."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tune_cure.utils import environment
from tune_cure.utils.formatting import join_words

PACKAGE = "pyautoattack"
KEY = "autoattack_version"
"""Name of the version in files of outcomes, and its column in tables."""
_SEPARATOR = ", "
_VERSIONS = re.compile(rf"(?:[\w.+!-]+(?:{_SEPARATOR}[\w.+!-]+)*)?", re.ASCII)
_MAX_LENGTH = 200


def installed_version() -> str:
    """Return the version of AutoAttack's package that is installed; empty if it is not known."""
    return environment.version(PACKAGE) or ""


def is_version(text: str) -> bool:
    """Return whether a text is what `join_versions` returns; files of outcomes and tables may come from anybody."""
    return len(text) <= _MAX_LENGTH and _VERSIONS.fullmatch(text) is not None


def join_versions(versions: Iterable[str]) -> str:
    """Return each version once, separated by commas; empty if one of them is not known, or if there is none."""
    single = [version for text in versions for version in text.split(_SEPARATOR)]
    return _SEPARATOR.join(dict.fromkeys(single)) if all(single) else ""


def read_version(arrays: Mapping[str, Any]) -> str:
    """Return the version in a network's outcomes; empty if it is not known: tune-cure 0.2.0 did not record it."""
    return str(arrays.get(KEY, ""))


def describe_versions(versions: Iterable[str]) -> str:
    """Return AutoAttack's package and versions as a sentence; empty if none is known.

    Args:
        versions: The version that judged each network; empty where it is not known.
    """
    single = dict.fromkeys(version for text in versions for version in text.split(_SEPARATOR))
    known = [version for version in single if version]
    if not known:
        return ""
    unknown = ", or of a version that was not recorded" if "" in single else ""
    return f"AutoAttack is that of the package {PACKAGE} {join_words(known)}{unknown}."
