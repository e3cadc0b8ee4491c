"""Data sets: found by `datasets`, decoded once by `prepared`, split by `splits`, batched on the device by `batches`.

Imports utils alone.
"""

from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits, load

__all__ = ["DataSpec", "Splits", "load"]
