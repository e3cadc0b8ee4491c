"""Networks read back from a saved file."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn

from tune_cure.models.registry import MODELS, build
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.registry import PartError, is_reference


def load(path: str | PathLike[str], *, map_location: str = "cpu", trust_code: bool = False) -> nn.Module:
    """Return the network of a `best_model.pt` in evaluation mode, ready for images in [0, 1].

    The file holds tensors and plain values only: it is opened with `weights_only=True`. See `rebuild` for `trust_code`.

    Raises:
        OSError: The file cannot be read.
        PartError: See `rebuild`.
        TuneCureError: The file is damaged, or holds no network of this project.
    """
    try:
        return rebuild(torch.load(path, map_location=map_location, weights_only=True), trust_code=trust_code)
    except (OSError, PartError):
        raise
    except Exception as error:  # a damaged file makes struct, pickle or zipfile raise errors of any kind
        # torch's own text advises to set weights_only=False, which would run the code of whoever sent the file.
        raise TuneCureError(f"{path}: is damaged, or holds no network of this project") from error


def rebuild(saved: Mapping[str, Any], *, device: torch.device | str = "cpu", trust_code: bool = False) -> nn.Module:
    """Return the network that a `best_model.pt` describes, in evaluation mode and in training's memory format.

    Args:
        saved: The arguments of `build` under the key `model`, and the weights under the key `weights`.
        device: Where the network is to run.
        trust_code: Import the network's module where its name is a `module:name`. A file from somebody else could
            name any module that can be imported here, and importing a module runs its code.

    Raises:
        PartError: The network is a `module:name` that this process has not imported, and `trust_code` is false.
    """
    name = saved["model"]["name"]
    if not trust_code and is_reference(name) and name not in MODELS:
        raise PartError(
            f"network {name!r} is not part of this project, and loading a file imports no code; if you trust the file, "
            f"call models.load(path, trust_code=True), or MODELS.resolve({name!r}) before"
        )
    model = build(**saved["model"])
    model.load_state_dict(saved["weights"])
    return model.to(device).to(memory_format=torch.channels_last).eval()
