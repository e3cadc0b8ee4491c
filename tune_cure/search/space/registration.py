"""The public function `tune_cure.register`, and the modules of the user's own that call it: `parts:` of a YAML file.

Importing such a module runs its code. So a search space's `parts` are imported where the user names the YAML file, and
those of a run's folder only where networks are built; see `own_parts`.
"""

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.registry import (
    PartError,
    Registry,
    add_working_directory,
    describe_error,
    did_you_mean,
    import_module,
)

REGISTRIES = {
    "attack": "tune_cure.attacks.registry:ATTACKS",
    "data set": "tune_cure.data.datasets:DATASETS",
    "direction": "tune_cure.regularizers.directions:DIRECTIONS",
    "loss": "tune_cure.gradients.registry:LOSSES",
    "method": "tune_cure.training.presets:METHODS",
    "network": "tune_cure.models.registry:MODELS",
    "norm": "tune_cure.attacks.registry:NORMS",
    "optimizer": "tune_cure.training.optimizers:OPTIMIZERS",
    "regularizer": "tune_cure.regularizers.registry:REGULARIZERS",
    "sampler": "tune_cure.search.proposals.samplers:SAMPLERS",
    "schedule": "tune_cure.training.schedules:SCHEDULES",
}
"""Each kind of part with the module and the name of its registry."""
_registered: dict[tuple[str, str], Any] = {}


@dataclass(frozen=True)
class _Imported:
    """A file of parts that this process has imported.

    Attributes:
        content: The bytes of the file then.
        names: The kind and the name of each part that it registered.
    """

    content: bytes
    names: list[tuple[str, str]]


_files: dict[Path, _Imported] = {}


def find_registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind of `REGISTRIES`."""
    module, _, attribute = REGISTRIES[kind].partition(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return registry


def register(kind: str, name: str, part: Any) -> None:
    """Add a part of your own under a name, for this process and the Rays that its searches and confirmations start.

    Called in a file that a search space names as `parts`, it adds the name wherever that search is run. Called
    elsewhere, other processes do not know the name: `tune-cure report` on such a search, for example.

    Args:
        kind: What it is, for example `network`; see `REGISTRIES`.
        name: The name in YAML files, settings and flags.
        part: The function or class; docs/own_parts.md says what each kind takes.

    Raises:
        TuneCureError: There is no such kind, the name is taken, or the part is of another kind.
    """
    if kind not in REGISTRIES:
        raise TuneCureError(f"{kind!r} is not one of {', '.join(REGISTRIES)}{did_you_mean(kind, REGISTRIES)}")
    find_registry(kind).register(name, part)
    _registered[kind, name] = part


def setup_of_workers() -> Callable[[], None] | None:
    """Return what a new process calls to know the parts that were registered here; None if there are none.

    Parts of files are left out: a process imports the file.
    """
    of_files = {key for imported in _files.values() for key in imported.names}
    registered = {key: part for key, part in _registered.items() if key not in of_files}
    if not registered:
        return None

    def register_all() -> None:
        for (kind, name), part in registered.items():
            register(kind, name, part)

    return register_all


def import_parts(parts: Iterable[str]) -> None:
    """Import each of `parts`: a file, by its absolute path, or a module, by its name.

    A file is imported as the module of its name. It is imported anew if it has changed since.

    Raises:
        PartError: One cannot be imported.
    """
    for source in parts:
        if is_file(source):
            _import_file(Path(source))
        else:
            add_working_directory()
            import_module(source, "parts", source)


def import_sent_parts(parts: Iterable[str]) -> None:
    """Import `parts` in a process that runs trials, perhaps on another machine, which has got the files as modules.

    Raises:
        PartError: One cannot be imported.
    """
    for source in parts:
        if is_file(source) and not Path(source).is_file():
            import_module(Path(source).stem, "parts", source)
        else:
            import_parts([source])


def is_file(source: str) -> bool:
    """Return whether one of `parts` names a file, not a module."""
    return source.endswith(".py")


def _import_file(file: Path) -> None:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PartError(f"{file}: cannot be read: {error.strerror}") from error
    known = _files.get(file)
    if known is not None and known.content == content:
        return
    if known is not None:
        _forget(file, known)
    _check_module_name(file)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # its own imports find the modules beside it, but after all others
    before = set(_registered)
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    sys.modules[file.stem] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code runs, which can raise anything
        _forget(file, _Imported(content, [key for key in _registered if key not in before]))
        raise PartError(f"{file}: cannot be imported: {describe_error(error)}") from error
    _files[file] = _Imported(content, [key for key in _registered if key not in before])


def _check_module_name(file: Path) -> None:
    """Check that a file can be imported by its name without hiding another module.

    Raises:
        PartError: It cannot.
    """
    name = file.stem
    if not name.isidentifier():
        raise PartError(f"{file}: its name cannot be that of a module: letters, digits and _ are allowed")
    found = sys.modules[name].__spec__ if name in sys.modules else PathFinder.find_spec(name)
    origin = found.origin if found else None
    if name in sys.stdlib_module_names or (origin is not None and Path(origin).resolve() != file.resolve()):
        raise PartError(f"{file}: there is another module {name} ({origin or 'of Python'}); rename the file")


def _forget(file: Path, imported: _Imported) -> None:
    """Undo the import of a file: its parts, and what was found in its module."""
    for kind, name in imported.names:
        del find_registry(kind)[name], _registered[kind, name]
    for kind in REGISTRIES:
        find_registry(kind).forget_module(file.stem)
    _files.pop(file, None)
    sys.modules.pop(file.stem, None)
