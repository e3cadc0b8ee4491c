"""Trained networks of any origin, ready to be judged: from images in [0, 1] to logits, in evaluation mode.

A network is named in one of five forms:

- `FOLDER` of a run (its best_model.pt) or of an export (config.json and model.safetensors);
- `FILE.pt`, a network that this project saved, or the state of a training (last.pt), for its last network;
- `FILE@module:name`, weights (.pt, .pth, .safetensors) of a network that the function `name` builds;
- `robustbench:ID`, a network of RobustBench's zoo, where that package is installed.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation.names import NORM_LABELS
from tune_cure.models import checkpoints
from tune_cure.models.registry import MODELS
from tune_cure.models.rehearsal import find_misfit
from tune_cure.search.run_files import BEST_MODEL
from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.files import FolderError, read_tensors
from tune_cure.utils.registry import PartError, is_reference

EXPORTED_CONFIG, EXPORTED_WEIGHTS = "config.json", "model.safetensors"
ROBUSTBENCH = "robustbench:"
NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which checkpoints of other projects hold the weights."""


class ModelError(TuneCureError):
    """A trained network that cannot be loaded."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights.

    Attributes:
        network: From images (N, C, H, W) in [0, 1] to logits (N, K), in evaluation mode, on the CPU.
        origin: Where it is from, in words.
        file: The file of its weights; None for one of RobustBench's zoo.
    """

    network: nn.Module
    origin: str
    file: Path | None

    @property
    def num_parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters() if parameter.requires_grad)


def load_trained(
    name: str, *, trust_code: bool = False, dataset: str = "cifar10", norm: str = "linf"
) -> TrainedNetwork:
    """Return the trained network of a name in one of this module's forms.

    Args:
        name: The name.
        trust_code: Import the code of a network that a saved file names as `module:name`. A file from somebody else
            could name any module that can be imported here. The module in `FILE@module:name` is always imported.
        dataset: The data set of a network of RobustBench's zoo.
        norm: The norm of its threat model, `linf` or `l2`.

    Raises:
        ModelError: There is no such network, or its weights do not fit.
        FolderError: A file is damaged.
        PartError: A module cannot be imported, or must not be without `trust_code`.
    """
    if name.startswith(ROBUSTBENCH):
        return _load_from_zoo(name.removeprefix(ROBUSTBENCH), dataset, norm)
    path, reference = split_reference(name)
    if reference:
        return _load_foreign(path, reference)
    if (path / EXPORTED_WEIGHTS).is_file():
        return _load_exported(path, trust_code)
    file = path / BEST_MODEL if path.is_dir() else path
    if not file.is_file():
        forms = f"a folder with {BEST_MODEL} or {EXPORTED_WEIGHTS}, a file, FILE@module:name or {ROBUSTBENCH}ID"
        raise ModelError(f"{name}: is no trained network: {forms} is needed")
    return _load_own(file, trust_code)


def split_reference(name: str) -> tuple[Path, str]:
    """Return the file and the `module:name` in FILE@module:name; the whole as a path and an empty text if it is none.

    A path may contain an @, too.
    """
    file, separator, reference = name.rpartition("@")
    return (Path(file), reference) if separator and is_reference(reference) else (Path(name), "")


def rehearse_network(name: str, trained: TrainedNetwork, test: Examples, num_classes: int) -> None:
    """Classify two images, so that a network that cannot be judged is refused before any is.

    Raises:
        ModelError: The network fails on such images, has another number of classes, or gives them no gradient.
    """
    images = to_float(test.gather(torch.arange(2))[0])
    if problem := find_misfit(trained.network, images, num_classes):
        raise ModelError(f"{name}: {problem}")


def _load_own(file: Path, trust_code: bool) -> TrainedNetwork:
    saved = _last_of_training(read_tensors(file, torch.device("cpu")))
    if not isinstance(saved.get("model"), dict) or not isinstance(saved.get("weights"), dict):
        raise ModelError(
            f"{file}: holds no network of this project; for weights of another, add the function that builds it: "
            f"{file}@module:name"
        )
    if not saved["weights"]:
        raise ModelError(f"{file}: its training diverged: there are no weights")
    return TrainedNetwork(_rebuild(file, saved, trust_code), str(file), file)


def _last_of_training(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the last network in the state of a training (last.pt, trainer.pt), or `saved` if it is no such state.

    If the training averages its weights, that is the average, as everywhere.
    """
    state = saved.get("trainer", saved)
    if not isinstance(state, dict) or not isinstance(state.get("best_model"), dict):
        return saved
    average = state.get("average")
    weights = average.get("weights") if isinstance(average, dict) and average.get("count") else state.get("model")
    return {"model": state["best_model"].get("model"), "weights": weights}


def _load_exported(folder: Path, trust_code: bool) -> TrainedNetwork:
    config, file = folder / EXPORTED_CONFIG, folder / EXPORTED_WEIGHTS
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        network = content["network"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ModelError(f"{config}: does not describe an exported network: {first_line(error)}") from error
    saved = {"model": network, "weights": _read_safetensors(file)}
    return TrainedNetwork(_rebuild(config, saved, trust_code), str(folder), file)


def _rebuild(file: Path, saved: Mapping[str, Any], trust_code: bool) -> nn.Module:
    """Return the network that `saved` describes; errors name `file`."""
    try:
        return checkpoints.rebuild(saved, trust_code=trust_code)
    except PartError as error:
        if isinstance(saved["model"].get("name"), str) and MODELS.is_unread(saved["model"]["name"]):
            raise ModelError(
                f"{file}: its network {saved['model']['name']!r} is code that is not part of this project; if you "
                "trust the file, add --trust-code, or name your own with --parts FILE"
            ) from error
        raise ModelError(f"{file}: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file}: holds no network of this project: {first_line(error)}") from error


def _load_foreign(file: Path, reference: str) -> TrainedNetwork:
    """Return the network that the function `reference` builds without arguments, with the weights of a file."""
    weights = _find_weights(file)
    build = MODELS.resolve(reference)
    try:
        network = build()
    except Exception as error:  # the user's own code runs, which can raise anything
        raise PartError(
            f"network {reference!r}: {reference.partition(':')[2]}() cannot be called without arguments: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise PartError(f"network {reference!r}: the function returned {type(network).__name__}, not a network")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ModelError(f"{file}: its weights do not fit {reference}: {' '.join(lines[1:2] or lines)}") from error
    return TrainedNetwork(network.eval(), f"{file} with {reference}", file)


def _find_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, wherever a training script may have put them.

    Raises:
        ModelError: There are none.
    """
    if not file.is_file():
        raise ModelError(f"{file}: there is no such file")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    content: Mapping[str, Any] = read_tensors(file, torch.device("cpu"))
    inner = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), content)
    weights = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if not weights:
        raise ModelError(f"{file}: holds no weights: its keys are {', '.join(map(str, content))[:200]}")
    if all(name.startswith("module.") for name in weights):  # torch.nn.DataParallel adds this
        return {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read_bytes())
    except OSError as error:
        raise FolderError(f"{file}: cannot be read: {error.strerror}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise FolderError(f"{file}: is damaged: {first_line(error)}") from error


def _load_from_zoo(identifier: str, dataset: str, norm: str) -> TrainedNetwork:
    """Return a network of RobustBench's zoo, which is downloaded on first use."""
    if norm not in NORM_LABELS:
        raise ModelError(
            f"{ROBUSTBENCH}{identifier}: RobustBench has networks for {' and '.join(NORM_LABELS)}, not for {norm}"
        )
    try:
        utils = importlib.import_module("robustbench.utils")
    except ImportError as error:
        raise ModelError(
            f"{ROBUSTBENCH}{identifier}: the package robustbench cannot be imported ({first_line(error)}); its README "
            "says how to install it"
        ) from error
    try:
        network = utils.load_model(identifier, dataset=dataset, threat_model=NORM_LABELS[norm])
    except Exception as error:  # an unknown name, no network, a full disk: the package raises errors of any kind
        raise ModelError(
            f"{ROBUSTBENCH}{identifier}: cannot be loaded for {dataset} and {NORM_LABELS[norm]}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    return TrainedNetwork(network.cpu().eval(), f"RobustBench's {identifier}", None)
