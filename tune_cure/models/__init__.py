"""Networks by name, and networks rebuilt from saved files.

`networks` has this project's networks and imports torch alone, `registry` adds those of packages and of the user, and
`checkpoints` reads saved files. Of the other rooms, only utils is imported.
"""

from tune_cure.models.checkpoints import load, rebuild
from tune_cure.models.registry import build

__all__ = ["build", "load", "rebuild"]
