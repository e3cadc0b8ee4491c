"""Export of a network into a folder for people without this package: weights, sizes, loader, model card.

The measurements in the folder are those of exactly its weights. The weights of a search's best trial were measured on
validation images, those of a confirmation's run on the test set.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_cure.confirmation.candidates import find_hyperparameters
from tune_cure.confirmation.job_config import JobConfig
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models import checkpoints, networks
from tune_cure.models.registry import MODELS, build
from tune_cure.reports.export.measurements import (
    ExportError,
    Measurement,
    find_doubts,
    find_doubts_of_run,
    find_runs,
    measured_by_confirmation,
    measured_by_search,
    read_run_config,
    run_seed,
)
from tune_cure.reports.export.network_source import NetworkSource, find_network_source
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training.config import TrainingConfig
from tune_cure.utils import environment
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import read_tensors, replace_bytes
from tune_cure.utils.formatting import join_words, quote_path
from tune_cure.utils.registry import PartError, did_you_mean, is_reference

WEIGHTS, SIZES, NETWORK, LOADER, CARD = "model.safetensors", "config.json", "model.py", "load.py", "README.md"
ONNX = "model.onnx"
BEST_CONFIG = (run_files.BEST_CONFIG_TABLE, run_files.BEST_CONFIG_SPEC)
LOAD_CODE = '''"""`from load import model`: the network, with torch alone. `python load.py` runs it on random images."""

import json
from pathlib import Path

import torch
from model import build

here = Path(__file__).parent
config = json.loads((here / "config.json").read_text(encoding="utf-8"))
content = bytearray((here / "model.safetensors").read_bytes())  # the header's size in 8 bytes, the header, the tensors
start = 8 + int.from_bytes(content[:8], "little")
weights, types = {}, {"F32": torch.float32, "I64": torch.int64}
for name, entry in json.loads(content[8:start]).items():
    first, last = entry["data_offsets"]
    values = torch.frombuffer(content[start + first : start + last], dtype=types[entry["dtype"]])
    weights[name] = values.view(entry["shape"])
model = build(**config["network"])
model.load_state_dict(weights)
model.eval()

if __name__ == "__main__":
    print(model(torch.rand(2, config["network"]["in_channels"], *(config["image_size"] or (32, 32)))))
'''
TENSOR_TYPES = (torch.float32, torch.int64)  # that LOAD_CODE can read


@dataclass(frozen=True)
class ExportedModel:
    """A trained network and what is known about it.

    Attributes:
        title: A short name.
        description: Where its weights come from.
        candidate: The name of its configuration in a confirmation.
        is_confirmed: True if a confirmation trained its weights, False if a search did.
        network: The arguments of `models.networks.build`.
        weights: Its tensors by name.
        classes: The names of the classes; None if they are not known.
        image_size: Height and width of the training images, in pixels; None if they are not known.
        config: How it was trained.
        searched: The names of the searched hyperparameters; empty for a baseline or a candidate of the user's, whose
            values the search did not choose.
        train_images: The number of training images; None if it is not recorded.
        held_out: Which of the search's validation images are among them, in words.
        measured: Measurements of exactly these weights.
        elsewhere: Measurements, on the test set, of other networks with the same hyperparameters and other seeds.
        warnings: Reasons to doubt the measurements.
        evaluation: How the search judged.
        data: The search's data set and how it was split.
        environment: The content of the search's environment.json; empty if there is none.
        name: The name of the search.
        trials: The number of trials of the search.
        best_config: True if best_config.csv and best_config.yaml describe its configuration.
    """

    title: str
    description: str
    candidate: str
    is_confirmed: bool
    network: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    classes: tuple[str, ...] | None
    image_size: tuple[int, int] | None
    config: TrainingConfig
    searched: tuple[str, ...]
    train_images: int | None
    held_out: str
    measured: tuple[Measurement, ...]
    elsewhere: tuple[Measurement, ...]
    warnings: tuple[str, ...]
    evaluation: EvaluationConfig
    data: DataSpec
    environment: Mapping[str, Any]
    name: str
    trials: int
    best_config: bool

    @property
    def num_parameters(self) -> int:
        """The number of trainable parameters."""
        parameters = build(**self.network).parameters()
        return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)

    def describe(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return {
            "network": dict(self.network),
            "classes": self.classes,
            "image_size": self.image_size,
            "weights": self.description,
            "training": self.config.model_dump(mode="json", by_alias=True),
            "data": {
                "dataset": self.data.dataset,
                "validation": self.data.validation,
                "split_seed": self.data.split_seed,
                "source": self.environment.get("data"),
                "train_images": self.train_images,
            },
            "evaluation": self.evaluation.model_dump(mode="json"),
            "measured": [asdict(measurement) for measurement in self.measured],
            "measured_with_other_seeds": [asdict(measurement) for measurement in self.elsewhere],
            "warnings": self.warnings,
            "versions": self.environment.get("versions"),
        }


def collect_search_model(result: SearchResult, *, trust_code: bool = False) -> ExportedModel:
    """Return the best model of a search.

    Args:
        result: The search.
        trust_code: Import the network's module where its name is a `module:name`.

    Raises:
        ExportError: There is no best model yet, or best_model.pt holds the weights of another trial or epoch.
    """
    file, best, spec = result.directory / run_files.BEST_MODEL, result.best, result.spec
    if best is None or not file.exists():
        raise ExportError(f"{result.directory}: there is no {run_files.BEST_MODEL} yet: there is nothing to export")
    saved = read_tensors(file, torch.device("cpu"))
    in_file, leading = (saved.get("trial"), saved.get("epoch")), (best.trial, int(best.row["best_epoch"]))
    if not all(isinstance(number, int) for number in in_file) or in_file != leading:
        raise ExportError(
            f"{file}: holds trial {in_file[0]!r:.20} after epoch {in_file[1]!r:.20}, but the best is {leading[0]} "
            f"after {leading[1]}; `tune-cure report {quote_path(result.directory)}` brings it up to date"
        )
    candidate = f"trial-{best.trial}"
    return ExportedModel(
        title=f"{spec.name}, trial {best.trial}",
        description=f"trial {best.trial} of the search {spec.name}, trained with seed {spec.search.seed}: the weights "
        f"after epoch {leading[1]}, its best on the validation images",
        candidate=candidate,
        is_confirmed=False,
        held_out="without those held out for validation",
        config=spec.training_config(best.hyperparameters),
        searched=tuple(spec.space),
        train_images=spec.data.train_examples,
        measured=tuple(measured_by_search(spec, best.row)),
        elsewhere=tuple(measured_by_confirmation(result, candidate, None)),
        warnings=tuple(find_doubts(result, candidate, str(best.row["status"]))),
        best_config=True,
        **_network_fields(file, saved, spec.data.image_size, trust_code),
        **_search_fields(result),
    )


def collect_confirmed_model(
    result: SearchResult, candidate: str, seed: int | None, *, trust_code: bool = False
) -> ExportedModel:
    """Return a network that a confirmation has trained.

    Args:
        result: The search.
        candidate: The name of the candidate.
        seed: The seed of the training run; None for the first one. The best one is not offered, since choosing it on
            the test set would make its accuracy there optimistic.
        trust_code: Import the network's module where its name is a `module:name`.

    Raises:
        ExportError: The candidate or the seed was not confirmed, or the run has not been judged yet, or diverged.
    """
    folder = _find_run(result, candidate, seed)
    file, config, best = folder / run_files.JOB_MODEL, read_run_config(folder), result.best
    saved = read_tensors(file, torch.device("cpu"))
    weights = saved.get("weights")
    if isinstance(weights, dict) and not weights:
        raise ExportError(f"{file}: the training diverged: there are no weights")
    measured = tuple(measured_by_confirmation(result, candidate, run_seed(folder)))
    if not measured:
        raise ExportError(f"{folder}: has not been judged yet; the same `tune-cure confirm` goes on with it")
    return ExportedModel(
        title=f"{result.spec.name}, {candidate}, seed {run_seed(folder)}",
        description=f"{config.contender} (search {result.spec.name}), trained anew for the whole schedule with seed "
        f"{run_seed(folder)} on {config.train_images:,} training images, {_describe_held_out(config)}: the "
        f"weights after the last epoch, {saved.get('epoch')}",
        candidate=candidate,
        is_confirmed=True,
        held_out=_describe_held_out(config),
        config=config.training,
        searched=() if find_hyperparameters(result, candidate) is None else tuple(result.spec.space),
        train_images=config.train_images,
        measured=measured,
        elsewhere=(),
        warnings=tuple(find_doubts_of_run(result, folder)),
        best_config=best is not None and candidate == f"trial-{best.trial}",
        **_network_fields(file, saved, result.spec.data.image_size, trust_code),
        **_search_fields(result),
    )


def _describe_held_out(config: JobConfig) -> str:
    """Return which of the search's validation images a confirmation has trained on, in words."""
    if config.held_out:
        return f"without {config.held_out:,} held out to choose the best epoch"
    return "including those held out for validation"


def _find_run(result: SearchResult, candidate: str, seed: int | None) -> Path:
    """Return the folder of a confirmation's run; with seed None that of the candidate's first seed."""
    names = sorted({folder.parent.name for folder in find_runs(result, "*")})
    if not names:
        raise ExportError(f"{result.directory}: holds no confirmation; `tune-cure confirm` makes one")
    if candidate not in names:
        raise ExportError(
            f"--confirmed {candidate}: was not confirmed; choose from {join_words(names)}"
            f"{did_you_mean(candidate, names)}"
        )
    runs = {run_seed(folder): folder for folder in find_runs(result, candidate)}
    if seed is None:
        return next(iter(runs.values()))
    if seed not in runs:
        raise ExportError(f"--seed {seed}: {candidate} was trained with seeds {join_words(map(str, runs))}")
    return runs[seed]


def write_bundle(
    exported: ExportedModel, card: str, source: Path, folder: Path, also: Mapping[str, bytes] | None = None
) -> None:
    """Write the folder, which must be empty or not exist yet.

    Args:
        exported: The network.
        card: The model card in Markdown.
        source: The search's folder.
        folder: The folder to write.
        also: Further files by their names; None for none.

    Raises:
        ExportError: The folder is not empty, or cannot be written.
    """
    from safetensors.torch import save  # not at the top: `cli.export` says in one line where it is missing

    files = {
        WEIGHTS: save(_separate(exported.weights)),
        SIZES: (json.dumps(exported.describe(), indent=2, allow_nan=False) + "\n").encode(),
        NETWORK: Path(networks.__file__).read_bytes(),
        LOADER: LOAD_CODE.encode(),
        CARD: card.encode(),
    }
    if source_code := find_network_source(exported.network["name"]):
        files[source_code.file.name] = source_code.file.read_bytes()
        files[LOADER] = _load_code(source_code).encode()
    files |= also or {}
    if exported.best_config:
        files |= {name: (source / name).read_bytes() for name in BEST_CONFIG if (source / name).is_file()}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: is not an empty folder; name another one after --to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_bytes(folder / name, content)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror}") from error


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies of tensors, each in memory of its own: safetensors refuses tied weights."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}


def _load_code(source: NetworkSource) -> str:
    """Return `LOAD_CODE` for a network whose function is in a file of its own.

    The function is imported under another name, since its own may be that of a variable in `LOAD_CODE`.
    """
    own = f"from {source.module} import {source.function} as architecture\n"
    code = LOAD_CODE.replace("from model import build\n", f"from model import build\n{own}")
    architectures = '{config["network"]["name"]: architecture}'
    return code.replace('build(**config["network"])', f'build(**config["network"], architectures={architectures})')


def _network_fields(file: Path, saved: Mapping[str, Any], side: int | None, trust_code: bool) -> dict[str, Any]:
    """Return the fields of `ExportedModel` about the network itself.

    Args:
        file: The file that it was read from.
        saved: The content of the file.
        side: The side that images were resized to, in pixels; None if they were not resized.
        trust_code: Import the network's module where its name is a `module:name`.

    Raises:
        ExportError: The file holds no network.
    """
    if not isinstance(saved.get("model"), dict) or not isinstance(saved.get("weights"), dict):
        raise ExportError(f"{file}: holds no network of this project")
    try:
        name = saved["model"]["name"]
        if MODELS.is_unread(name) and not trust_code:
            raise ExportError(
                f"{file}: its network {name!r} is code that is not part of this project, and a file that somebody sent "
                "can name any module here; if you trust the file, add --trust-code, or name your own with --parts FILE"
            )
        json.dumps(saved["model"], allow_nan=False)  # raises for what config.json cannot hold
        network = checkpoints.rebuild(saved, trust_code=trust_code)
        classes, size = saved.get("classes"), saved.get("image_size", side and (side, side))
        fields: dict[str, Any] = {
            "network": dict(saved["model"]),
            "classes": None if classes is None else tuple(map(str, classes)),
            "image_size": None if size is None else (int(size[0]), int(size[1])),
        }
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        if isinstance(error, ExportError) or (isinstance(error, PartError) and is_reference(name)):
            raise
        raise ExportError(f"{file}: holds no network of this project: {first_line(error)}") from error
    weights = network.state_dict()
    for key, tensor in weights.items():
        if tensor.dtype not in TENSOR_TYPES:  # mean or std, which have the type of the values in the file
            raise ExportError(f"{file}: holds no network of this project: {key} is {tensor.dtype}, not torch.float32")
    return {"weights": weights, **fields}


def _search_fields(result: SearchResult) -> dict[str, Any]:
    """Return the fields of `ExportedModel` about the search."""
    return {
        "name": result.spec.name,
        "trials": len(result.trials),
        "evaluation": result.spec.evaluation,
        "data": result.spec.data,
        "environment": environment.read(result.directory).content,
    }
