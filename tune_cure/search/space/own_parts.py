"""The user's own parts in a search: which ones it names, and what must be imported or sent for them.

Reading a search's files imports no `module:name`. Commands that train or judge networks call `import_own_parts` first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune_cure.attacks.norms import NORMS
from tune_cure.attacks.registry import ATTACKS
from tune_cure.data.datasets import DATASETS
from tune_cure.gradients.input_gradients import LOSSES
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.cure import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.proposals.samplers import SAMPLERS
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils.registry import PartError, Registry, is_reference, local_modules
from tune_cure.utils.yaml_config import ProblemError

OF_TRAINING: dict[str, Registry[Any]] = {
    "attack": ATTACKS,
    "norm": NORMS,
    "regularizer": REGULARIZERS,
    "direction": DIRECTIONS,
    "optimizer": OPTIMIZERS,
    "lr_schedule": SCHEDULES,
}


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


def import_parts_of_run(spec: SearchSpec, file: Path) -> None:
    """Import the user's own parts of a search whose networks are to be trained again.

    Raises:
        SpecError: A module cannot be imported, or has no such part; the error names `file`, the run's spec.yaml.
    """
    try:
        import_own_parts(spec)
    except ProblemError as problem:
        raise problem.within(file) from problem


def own_part_files(spec: SearchSpec) -> list[Path]:
    """Return the files and package folders in the working directory that a search's own parts need.

    Other machines of a cluster have no such directory: these files must be sent there. Nothing is imported.
    """
    return local_modules(name for _, _, name in _references(spec))


def _references(spec: SearchSpec) -> Iterator[tuple[str, Registry[Any], str]]:
    """Yield the path, the registry and the name of each part of the user's own that a search names."""
    names: list[tuple[str, Registry[Any], Any]] = [
        ("data.dataset", DATASETS, spec.data.dataset),
        ("model.name", MODELS, spec.model.name),
        ("evaluation.norm", NORMS, spec.evaluation.norm),
        ("evaluation.loss", LOSSES, spec.evaluation.loss),
        ("search.sampler", SAMPLERS, spec.search.sampler),
    ]
    for key, registry in OF_TRAINING.items():
        if key in spec.training:
            names.append((f"training.{key}", registry, spec.training[key]))
        if key in spec.space and spec.space[key].kind == "choice":
            names += [(f"space.{key}", registry, name) for name in spec.space[key].values]
    yield from ((path, registry, name) for path, registry, name in names if is_reference(name))
