"""Networks by name, and networks read back from saved files. Imports torch alone."""

from tune_cure.models.checkpoints import load, rebuild
from tune_cure.models.registry import build

__all__ = ["build", "load", "rebuild"]
