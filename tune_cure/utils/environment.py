"""Record of where and how a run was computed: versions, devices, git commit, command. Every run leaves one."""

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cure.utils.errors import first_line
from tune_cure.utils.files import replace_text
from tune_cure.utils.formatting import format_count, one_line

FILE = "environment.json"
MAX_DEPTH = 10  # of lists and mappings within each other
PACKAGES = ("tune-cure", "torch", "torchvision", "ray", "optuna", "pandas", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Environment:
    """The content of a run's environment.json.

    A missing file and a damaged one are both a record of nothing, because a report or a comparison is of use without
    it. The file may come from somebody else: a value of an unexpected type counts as not recorded.

    Attributes:
        content: The file's values by their keys; empty if there is no file or if it is damaged.
        damage: Why the file cannot be read, in one line; empty if it can be read or if there is none.
    """

    content: dict[str, Any] = field(default_factory=dict)
    damage: str = ""

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The records of the sessions that computed the run: the first one, then each that resumed it.

        Empty if that is not recorded.
        """
        resumed = self.content.get("resumed", [])
        if not self.content or not isinstance(resumed, list) or not all(isinstance(item, dict) for item in resumed):
            return []
        return [self.content, *resumed]

    @property
    def last_host(self) -> str | None:
        """The name of the machine that computed the run last; None if that is not recorded."""
        host = self.sessions[-1].get("host") if self.sessions else None
        return host if isinstance(host, str) else None

    @property
    def devices(self) -> str:
        """The devices of the first session in words, such as `2 × H100` or `8 CPU cores`; empty if not recorded."""
        gpus, cpus = self.content.get("gpus"), self.content.get("cpus")
        if isinstance(gpus, list) and gpus:
            return ", ".join(f"{gpus.count(name)} × {name}" for name in dict.fromkeys(map(str, gpus)))
        return format_count(cpus, "CPU core") if isinstance(cpus, int) else ""

    @property
    def chance_level(self) -> float | None:
        """The accuracy of one fixed answer on the images that judge trials, a fraction; None if it is not recorded."""
        levels = [session.get("chance_level") for session in reversed(self.sessions)]
        return next((level for level in levels if isinstance(level, float) and 0 < level <= 1), None)


def read(directory: Path) -> Environment:
    """Read the record of the run in `directory`. A missing or damaged file raises no error; see `Environment`."""
    try:
        content = _for_people(json.loads((directory / FILE).read_text(encoding="utf-8"), parse_constant=_refuse))
    except FileNotFoundError:
        return Environment()
    except (OSError, ValueError, RecursionError) as error:
        return Environment(damage=f"{FILE} is damaged: {first_line(error)}")
    if not isinstance(content, dict):
        return Environment(damage=f"{FILE} is damaged: it holds no record")
    return Environment(content)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")


def _for_people(content: Any, depth: int = 0) -> Any:
    """Return a value of JSON with its texts in one line and without control characters.

    Raises:
        ValueError: It is nested more deeply than any record.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(content, dict):
        return {one_line(key): _for_people(value, depth + 1) for key, value in content.items()}
    if isinstance(content, list):
        return [_for_people(value, depth + 1) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        raise ValueError(f"{content} is no value of JSON")
    return one_line(content) if isinstance(content, str) else content


def write(directory: Path, data_source: str, *, chance_level: float | None = None) -> None:
    """Write the record of this session, or append it to the list `resumed` of the record that is there.

    Args:
        directory: The run's folder.
        data_source: Where the images came from, in words.
        chance_level: The accuracy of one fixed answer on the images that judge trials, a fraction; None records none.
    """
    first, session = read(directory).content, describe(data_source)
    if chance_level is not None:
        session["chance_level"] = chance_level
    if first:
        resumed = first.get("resumed")
        first["resumed"] = [*(resumed if isinstance(resumed, list) else []), session]
    replace_text(directory / FILE, json.dumps(first or session, indent=2) + "\n")


def describe(data_source: str) -> dict[str, Any]:
    """Return the record of this session; `data_source` says in words where the images came from."""
    import torch  # takes seconds, and commands that only read a record need none of it

    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "data": data_source,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
    }


def version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return None


def _git_commit() -> str | None:
    """Return the commit of the package's own checkout, marked if it has changes; None outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # A package in a virtual environment may lie in the checkout of another project, whose commit says nothing.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or not a checkout
        return None
    return f"{commit} with uncommitted changes" if changes else commit
