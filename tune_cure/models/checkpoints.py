"""Networks read back from a saved file."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn

from tune_cure.models.networks import build


def load(path: str | PathLike[str], *, map_location: str = "cpu") -> nn.Module:
    """The network of a `best_model.pt` in evaluation mode, ready for images in [0, 1].

    The file holds tensors and plain values only: it is opened with `weights_only=True`.
    """
    return rebuild(torch.load(path, map_location=map_location, weights_only=True))


def rebuild(saved: Mapping[str, Any]) -> nn.Module:
    """The network, in evaluation mode, of what a `best_model.pt` holds: the arguments of `build`, and the weights."""
    model = build(**saved["model"])
    model.load_state_dict(saved["weights"])
    return model.eval()
