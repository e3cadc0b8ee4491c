"""Runs that version 0.1.0 (commit d2c61a4) left, in tests/data/v0_1_0; machine and folder names are replaced.

finished: a search that ended, with its confirmation. interrupted: a search after Ctrl-C, and in interrupted_resumed
the trials that 0.1.0 had after it resumed it. trained: a training run after Ctrl-C, and in trained_resumed what 0.1.0
had after it resumed it. quickstart.jsonl: the trials of the quick start, one at a time. They were computed on a CPU
with AVX-512, by torch 2.15.0. Other CPUs with AVX-512 round otherwise, in the last digit of some numbers.
"""

import shutil
from pathlib import Path

import pandas as pd
import torch

FOLDER = Path(__file__).parents[1] / "data" / "v0_1_0"
MEASURED = ("train_seconds", "attack_seconds", "penalty_seconds", "eval_seconds", "images_per_second",
            "device_memory_mb", "started", "ended")  # fmt: skip
"""Columns that say how the machine did, not what was computed."""
ROUNDING = 1e-5  # relative: a wrong seed, order or formula makes larger differences within an epoch


def copy_run(name: str, to: Path) -> Path:
    """Return a copy of a run, which a test may change."""
    return shutil.copytree(FOLDER / name, to / name)


def _is_alike() -> bool:
    """Return whether this process computes the same numbers, but for rounding, as the one that left the runs."""
    return torch.__version__.split("+")[0] == "2.15.0" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def assert_same_results(found: Path, reference: Path) -> None:
    """Compare two tables but for rounding and measurements of the machine.

    Another kind of machine rounds so differently that other trials are stopped: only columns and rows are compared.
    """
    tables = [pd.read_csv(path) for path in (found, reference)]
    assert tables[0].columns.tolist() == tables[1].columns.tolist()
    assert len(tables[0]) == len(tables[1])
    if _is_alike():
        computed = [name for name in tables[0] if name not in MEASURED]
        pd.testing.assert_frame_equal(tables[0][computed], tables[1][computed], rtol=ROUNDING, atol=0)
