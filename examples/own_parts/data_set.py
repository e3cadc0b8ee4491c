"""A data set of your own: arrays in a file images.npz. To use it, copy the function into
tune_cure/data/datasets.py and add

    "arrays": Dataset(find_arrays),

to `DATASETS` there; then `data: {dataset: arrays, root: FOLDER, validation: 500}`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tune_cure.data.source import DataError, DataSource


def find_arrays(root: Path, image_size: int | None, download: bool) -> DataSource:
    """images.npz in `root`: images (M, C, H, W) uint8, labels (M,) whole numbers from 0, classes (K,) names."""
    file = root / "images.npz"
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; put images, labels and classes there")

    def read() -> dict[str, Any]:
        with np.load(file) as arrays:
            return {
                "train_images": torch.from_numpy(arrays["images"]),
                "train_labels": torch.from_numpy(arrays["labels"].astype(np.int64)),
                "classes": [str(name) for name in arrays["classes"]],
            }  # without test_images, a test set is held out of these

    state = file.stat()
    return DataSource(f"arrays of {file}", fingerprint=f"{file} {state.st_size} {state.st_mtime_ns}", read=read)
