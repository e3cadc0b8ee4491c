"""The public function `tune_cure.register`, and where the registry of each kind of part is."""

import importlib
from collections.abc import Callable
from typing import Any

from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.registry import Registry, did_you_mean

REGISTRIES = {
    "attack": "tune_cure.attacks.registry:ATTACKS",
    "data set": "tune_cure.data.datasets:DATASETS",
    "direction": "tune_cure.regularizers.cure:DIRECTIONS",
    "loss": "tune_cure.gradients.input_gradients:LOSSES",
    "network": "tune_cure.models.registry:MODELS",
    "norm": "tune_cure.attacks.norms:NORMS",
    "optimizer": "tune_cure.training.optimizers:OPTIMIZERS",
    "regularizer": "tune_cure.regularizers.registry:REGULARIZERS",
    "sampler": "tune_cure.search.proposals.samplers:SAMPLERS",
    "schedule": "tune_cure.training.schedules:SCHEDULES",
}
"""Each kind of part with the module and the name of its registry."""
_registered: dict[tuple[str, str], Any] = {}


def register(kind: str, name: str, part: Any) -> None:
    """Add a part of your own under a name, for this process and the Rays that its searches and confirmations start.

    Other processes do not know the name: `tune-cure report` on such a search, for example. A name that everyone
    understands is `package.module:name`, or that of a part of an installed package.

    Args:
        kind: What it is, for example `network`; see `REGISTRIES`.
        name: The name in YAML files, settings and flags.
        part: The function or class; docs/own_parts.md says what each kind takes.

    Raises:
        TuneCureError: There is no such kind, the name is taken, or the part is of another kind.
    """
    if kind not in REGISTRIES:
        raise TuneCureError(f"{kind!r} is not one of {', '.join(REGISTRIES)}{did_you_mean(kind, REGISTRIES)}")
    module, _, attribute = REGISTRIES[kind].partition(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), attribute)
    registry.register(name, part)
    _registered[kind, name] = part


def setup_of_workers() -> Callable[[], None] | None:
    """Return what a new process calls to know the parts that were registered here; None if there are none."""
    if not _registered:
        return None
    registered = dict(_registered)

    def register_all() -> None:
        for (kind, name), part in registered.items():
            register(kind, name, part)

    return register_all
