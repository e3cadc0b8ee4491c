"""Record of where and how a run was computed: versions, devices, git commit, command. Every run leaves one.

Also the packages that commands go on without, and what is left out where one is missing.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.files import replace_text
from tune_cure.utils.formatting import format_count, one_line

FILE = "environment.json"
MAX_DEPTH = 10  # of lists and mappings within each other
UNNAMED_GPU = "unnamed GPU"
SMI_SECONDS = 20.0  # nvidia-smi takes seconds where the driver is not kept loaded
PACKAGES = (
    "tune-cure",
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "pandas",
    "numpy",
    "scikit-learn",
    "pyautoattack",
)
LEFT_OUT = {
    "plotly": "no pages with plots (report.html, confirm.html, curves.html)",
    "matplotlib": "no figures as SVG and PNG",
    "sklearn": "nothing in the report on what mattered",
    "tensorboardX": "no TensorBoard files",
}
"""What is left out without a package, by the name that it is imported under."""
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Names to install a package by, where it is imported under another name."""


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
        "gpus": gpu_names(torch.cuda.device_count()),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
    }


def gpu_names(count: int) -> list[str]:
    """Return the names of the GPUs that this process may use, in CUDA's order.

    They come from nvidia-smi. `torch.cuda.get_device_name` would start CUDA in this process, which drives trials in
    other processes and would hold some hundred MiB of a GPU that it never uses.

    Args:
        count: How many there are, as CUDA counts. A GPU that nvidia-smi does not know is an "unnamed GPU".
    """
    if not count:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=SMI_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return [UNNAMED_GPU] * count
    gpus = [(uuid, name.strip()) for uuid, _, name in (line.partition(",") for line in listed.splitlines())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [name for _, name in gpus]
    else:
        names = [_name_of(chosen.strip(), gpus) for chosen in visible.split(",")]
    return (names + [UNNAMED_GPU] * count)[:count]


def _name_of(chosen: str, gpus: list[tuple[str, str]]) -> str:
    """Return the name of a GPU that CUDA_VISIBLE_DEVICES names by its number or by the beginning of its UUID."""
    if chosen.isdigit():
        return gpus[int(chosen)][1] if int(chosen) < len(gpus) else UNNAMED_GPU
    return next((name for uuid, name in gpus if chosen and uuid.startswith(chosen)), UNNAMED_GPU)


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


class MissingPackageError(TuneCureError):
    """A package without which a command cannot do what it was asked for."""


def is_installed(module: str) -> bool:
    """Return whether a package can be found; it is not imported."""
    return importlib.util.find_spec(module) is not None


def require(module: str, purpose: str) -> None:
    """Check that a package is there.

    Args:
        module: The name that the package is imported under.
        purpose: What needs it, for the error.

    Raises:
        MissingPackageError: It is not there.
    """
    if not is_installed(module):
        name = DISTRIBUTIONS.get(module, module)
        raise MissingPackageError(f"{purpose} needs the package {name}, which is not installed: pip install {name}")


def describe_missing(modules: Iterable[str]) -> str:
    """Return in one line which packages are missing and what is left out therefore; empty if all are there.

    Args:
        modules: Keys of `LEFT_OUT`: the packages that a command uses.
    """
    missing = {DISTRIBUTIONS.get(name, name): LEFT_OUT[name] for name in modules if not is_installed(name)}
    if not missing:
        return ""
    left_out = "; ".join(f"without {name}: {text}" for name, text in missing.items())
    return f"{left_out} (pip install {' '.join(missing)})"
