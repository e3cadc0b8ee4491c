"""Data sets: found, prepared once, split, and batched on the device. Imports utils alone."""

from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits, load

__all__ = ["DataSpec", "Splits", "load"]
