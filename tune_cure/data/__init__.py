"""Data sets: found by `datasets`, decoded once by `prepared`, split by `splits`, batched on the device by `batches`.

Imports utils alone. `DataSpec`, `Splits` and `load` are imported when they are first used, because they need torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_cure.data.config import DataSpec
    from tune_cure.data.splits import Splits, load

__all__ = ["DataSpec", "Splits", "load"]

_MODULES = {"DataSpec": "config", "Splits": "splits", "load": "splits"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
