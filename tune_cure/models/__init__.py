"""Networks by name, and networks rebuilt from saved files.

`networks` has this project's networks and imports torch alone, `registry` adds those of packages and of the user, and
`checkpoints` reads saved files. Of the other rooms, only utils is imported. `build`, `load` and `rebuild` are imported
when they are first used: the names of networks are read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_cure.models.checkpoints import load, rebuild
    from tune_cure.models.registry import build

__all__ = ["build", "load", "rebuild"]

_MODULES = {"build": "registry", "load": "checkpoints", "rebuild": "checkpoints"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
