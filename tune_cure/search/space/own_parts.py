"""The user's own parts in a search: which ones it names, what is imported for them, and what is sent to other machines.

A search names a part as `module:name`, or by a name that one of its `parts` (files or modules) registers. Reading a
search's files imports none of them. Commands that train or judge networks call `import_own_parts` first.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.data.datasets import DATASETS
from tune_cure.gradients.registry import LOSSES
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.proposals.samplers import SAMPLERS
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.registration import import_parts, is_file
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.presets import METHOD, METHODS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.registry import PartError, Registry, is_reference, local_modules
from tune_cure.utils.yaml_config import ProblemError, SpecError

OF_TRAINING: dict[str, Registry[Any]] = {
    METHOD: METHODS,
    "attack": ATTACKS,
    "norm": NORMS,
    "regularizer": REGULARIZERS,
    "direction": DIRECTIONS,
    "optimizer": OPTIMIZERS,
    "lr_schedule": SCHEDULES,
}


OF_SECTIONS: dict[str, Registry[Any]] = {
    "data.dataset": DATASETS,
    "model.name": MODELS,
    "evaluation.norm": NORMS,
    "evaluation.loss": LOSSES,
    "search.sampler": SAMPLERS,
}
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def read_parts(content: dict[str, Any], folder: Path) -> dict[str, list[str]]:
    """Return the `parts` of a YAML file as a list, with absolute paths; empty if it has none.

    Args:
        content: The content of the file.
        folder: The folder of the file, which paths are relative to.

    Raises:
        ProblemError: They are no files or modules.
    """
    given = content.get("parts")
    if given is None:
        return {}
    names = given if isinstance(given, list) else [given]
    for name in names:
        if not isinstance(name, str) or not (is_file(name) or _MODULE.fullmatch(name)) or "\0" in name:
            found = shorten_repr(name)
            raise ProblemError("parts", f"a file such as my_parts.py, or a module, is needed, but found {found}")
    return {"parts": [str((folder / name).absolute()) if is_file(name) else name for name in names]}


def expect_own_parts(content: dict[str, Any]) -> None:
    """Accept the names of parts in a YAML file with `parts`, which is read without importing these."""
    if content.get("parts"):
        for _, registry, name in _names(content):
            if isinstance(name, str) and name not in registry:
                registry.expect(name)


def import_own_parts(spec: SearchSpec) -> None:
    """Import the module of every `module:name` that a search names, so that its parts can be used in this process.

    Raises:
        ProblemError: A module cannot be imported, or has no such part; the path is that of the name.
    """
    for path, registry, name in _references(spec):
        try:
            registry.resolve(name)
        except PartError as error:
            raise ProblemError(path, str(error)) from error


def import_parts_of_run(spec: SearchSpec, file: Path, given: Path | None = None) -> SearchSpec:
    """Import the user's own parts of a run whose networks are to be built; return the search with their paths as now.

    Args:
        spec: The search.
        file: The run's file that names the parts.
        given: The file of the parts that the user names; None takes those that the run names.

    Raises:
        SpecError: A module cannot be imported, or has no such part; the error names `file`.
    """
    spec = spec.model_copy(update={"parts": import_chosen_parts(spec.parts, file, given)})
    try:
        import_own_parts(spec)
    except ProblemError as problem:
        raise problem.within(file) from problem
    return spec


def import_chosen_parts(parts: Sequence[str], file: Path, given: Path | None) -> list[str]:
    """Import the files and modules that `choose_parts` returns for these arguments, and return them.

    Raises:
        SpecError: One may not or cannot be imported; the error names `file`.
    """
    chosen = choose_parts(parts, file, given)
    try:
        import_modules(chosen)
    except ProblemError as problem:
        raise problem.within(file) from problem
    return chosen


def choose_parts(parts: Sequence[str], file: Path, given: Path | None) -> list[str]:
    """Return the files and modules of parts that may be imported for a run, whose folder somebody may have sent.

    Args:
        parts: Those that the run names.
        file: The run's file that names them.
        given: The file that the user names instead; None if there is none.

    Raises:
        SpecError: One is not where it was, or in the run's folder, and the user has not named it.
    """
    if given is not None:
        return [str(given.expanduser().absolute())]
    for part in filter(is_file, parts):
        if not Path(part).is_file():
            raise SpecError(f"{file}: parts: {part}: there is no such file any more; name it with --parts FILE")
        if Path(part).resolve().is_relative_to(file.parent.resolve()):
            raise SpecError(
                f"{file}: parts: {part}: is in the run's folder, which somebody may have sent, and importing it runs "
                f"its code; if you trust it, name it with --parts FILE"
            )
    return list(parts)


def import_modules(parts: Sequence[str]) -> None:
    """Import the files and modules that a search names as its `parts`.

    Raises:
        ProblemError: One cannot be imported; the path is `parts`.
    """
    try:
        import_parts(parts)
    except PartError as error:
        raise ProblemError("parts", str(error)) from error


def own_part_files(*specs: SearchSpec, also: Iterable[str] = ()) -> list[Path]:
    """Return the files and package folders that the own parts of searches need, once they are imported.

    Other machines of a cluster may lack them, so they are sent there. These are the files of `parts`, what
    `module:name` names in the working directory, and what of their folders they have imported.

    Args:
        specs: The searches.
        also: Names of further parts, as of a confirmation's candidates; those of this project count for nothing.
    """
    parts = [part for spec in specs for part in spec.parts]
    names = [name for spec in specs for _, _, name in _references(spec)] + [part for part in parts if not is_file(part)]
    names += filter(is_reference, also)
    found = dict.fromkeys([*(Path(part) for part in parts if is_file(part)), *local_modules(names)])
    if not found:
        return []
    folders = {file.parent.resolve() for file in found}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        whole = file.parent if file.name == "__init__.py" else file
        if "." not in name and name not in ("__main__", "tune_cure") and whole.parent.resolve() in folders:
            found[whole] = None
    return list({path.resolve(): path for path in found}.values())


def _references(spec: SearchSpec) -> Iterator[tuple[str, Registry[Any], str]]:
    """Yield the path, the registry and the name of each `module:name` in a search."""
    sections = {name: getattr(spec, name).model_dump() for name in ("data", "model", "evaluation", "search")}
    space = {key: {"choice": where.values} for key, where in spec.space.items() if where.kind == "choice"}
    names = _names({**sections, "training": spec.training, "space": space})
    yield from ((path, registry, name) for path, registry, name in names if is_reference(name))


def _names(content: dict[str, Any]) -> Iterator[tuple[str, Registry[Any], Any]]:
    """Yield the path, the registry and the name of each part in the content of a YAML file, which may be damaged."""
    sections = {name: section for name, section in content.items() if isinstance(section, dict)}
    for path, registry in OF_SECTIONS.items():
        section, _, key = path.partition(".")
        if key in sections.get(section, {}):
            yield path, registry, sections[section][key]
    for key, registry in OF_TRAINING.items():
        if key in sections.get("training", {}):
            yield f"training.{key}", registry, sections["training"][key]
        searched = sections.get("space", {}).get(key)
        if isinstance(searched, dict) and isinstance(searched.get("choice"), list):
            yield from ((f"space.{key}", registry, name) for name in searched["choice"])
