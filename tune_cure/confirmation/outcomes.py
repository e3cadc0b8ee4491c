"""Files that a job of a confirmation leaves, read back: outcomes, network, status. They may be damaged."""

import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from tune_cure.evaluation.autoattack_version import is_version, read_version
from tune_cure.evaluation.names import ATTACKS
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import FolderError, read_tensors
from tune_cure.utils.schema import Schema

Arrays = dict[str, NDArray[Any]]
Weights = Literal["last", "best"]
"""Weights of a training run: those after its last epoch, or those of the epoch that the held-out images chose."""
NUMBERS = ("zero_gradient", "seconds")  # entries of a file of outcomes that are no attacks


def read_outcomes(file: Path, examples: int) -> Arrays:
    """Return the content of an outcomes.npz.

    Args:
        file: The file.
        examples: How many images the network was judged on.

    Returns:
        By each attack's name an array (examples,) that is True where the image was still classified correctly, and
        `zero_gradient` and `seconds`, both of shape (). Where it is known, `autoattack_version`, a text of shape ().

    Raises:
        FolderError: The file is damaged.
    """
    try:
        with np.load(io.BytesIO(file.read_bytes())) as content:
            arrays = {name: content[name] for name in content.files}
        _check(arrays, examples)
    except Exception as error:  # a damaged file makes numpy, zipfile or zlib raise errors of any kind
        message = (
            f"{file}: is damaged: {first_line(error)}; once it is deleted, the same tune-cure confirm judges again"
        )
        raise FolderError(message) from error
    return arrays


def _check(arrays: Arrays, examples: int) -> None:
    """Check that arrays are outcomes of `examples` images.

    Raises:
        ValueError: They are not.
    """
    for name in ("clean", *(set(ATTACKS) & arrays.keys())):
        if name not in arrays or arrays[name].dtype != bool or arrays[name].shape != (examples,):
            raise ValueError(f"{name} has no outcomes of {examples} images")
    for name in NUMBERS:
        if name not in arrays or arrays[name].shape != () or not 0 <= float(arrays[name]) < np.inf:
            raise ValueError(f"{name} is no number")
    if not is_version(read_version(arrays)):
        raise ValueError("autoattack_version is no version")


def read_trained(file: Path) -> dict[str, Any]:
    """Return the content of a job's model.pt: `weights` (empty if training diverged), `epoch`, `train_seconds`, ….

    Raises:
        FolderError: The file is damaged, or lacks one of these.
    """
    trained = read_tensors(file, "cpu")
    for name, kind in (("weights", dict), ("epoch", int), ("train_seconds", float)):
        if not isinstance(trained.get(name), kind):
            raise FolderError(
                f"{file}: cannot be read as a trained network: its {name} are missing, or of another kind"
            )
    return trained


class _Training(Schema):
    stage: Literal["training"]
    epoch: int
    epochs: int


class _Judging(Schema):
    stage: Literal["judging"]
    epsilon: float
    weights: Literal["last", "best"] = "last"
    attack: str
    accuracy: float | None = None


class _Done(Schema):
    stage: Literal["done"]


_STATUS: TypeAdapter[Schema] = TypeAdapter(Annotated[_Training | _Judging | _Done, Field(discriminator="stage")])


def read_status(file: Path) -> dict[str, Any]:
    """Return what a job's status.json says; empty if it is missing or damaged, for the job itself writes it anew."""
    try:
        return _STATUS.validate_python(json.loads(file.read_text(encoding="utf-8"))).model_dump(exclude_unset=True)
    except (OSError, ValueError, RecursionError):
        return {}
