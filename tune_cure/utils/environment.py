"""Where a search ran: versions, devices, git commit and command line, for the record that every run leaves."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tune_cure.utils.files import replace_text
from tune_cure.utils.formatting import format_count

FILE = "environment.json"
PACKAGES = ("tune-cure", "torch", "torchvision", "ray", "optuna", "pandas", "numpy", "scikit-learn")


def write(directory: Path, data_source: str) -> None:
    """Writes environment.json, or where a search is continued adds this session to its list `resumed`."""
    path = directory / FILE
    here = describe(data_source)
    if path.exists():
        first = json.loads(path.read_text(encoding="utf-8"))
        first.setdefault("resumed", []).append(here)
        here = first
    replace_text(path, json.dumps(here, indent=2) + "\n")


def last_host(directory: Path) -> str | None:
    """The machine that the search in `directory` was last begun or continued on; None if that is not recorded."""
    try:
        content = json.loads((directory / FILE).read_text(encoding="utf-8"))
        host = [content, *content.get("resumed", [])][-1].get("host")
    except (OSError, ValueError, AttributeError, TypeError):  # there is none, or whoever sent the run wrote it
        return None
    return host if isinstance(host, str) else None


def devices(directory: Path) -> str:
    """The devices of the machine that the search in `directory` was begun on, in words; empty if not recorded."""
    try:
        content = json.loads((directory / FILE).read_text(encoding="utf-8"))
        gpus, cpus = content.get("gpus"), content.get("cpus")
    except (OSError, ValueError, AttributeError):  # there is none, or whoever sent the run wrote it
        return ""
    if isinstance(gpus, list) and gpus:
        return ", ".join(f"{gpus.count(name)} × {name}" for name in dict.fromkeys(map(str, gpus)))
    return format_count(cpus, "CPU core") if isinstance(cpus, int) else ""


def describe(data_source: str) -> dict[str, Any]:
    """The content of environment.json; `data_source` says in words where the images came from."""
    import torch  # takes seconds, and who only reads needs none of it

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
    """The installed version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this package is in, marked where it has changes; None outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # Installed into a virtual environment it may lie in the checkout of another project, whose commit says nothing.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or not a checkout
        return None
    return f"{commit} with uncommitted changes" if changes else commit
