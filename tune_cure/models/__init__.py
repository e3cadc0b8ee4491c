"""Networks by name, and networks rebuilt from saved files.

`networks` has this project's networks and imports torch alone, `registry` adds those of packages and of the user, and
`checkpoints` reads saved files. Of the other rooms, only utils is imported. `load` is public, and imported when it is
first used: the names of networks are read without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_cure.models.checkpoints import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tune_cure.models.checkpoints import load

    return load
