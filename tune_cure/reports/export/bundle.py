"""A network in a folder of its own, for people without this package: weights, sizes, a loader, what was measured.

What the folder says was measured belongs to exactly the weights in it: those of a search's best trial were measured on
validation images, those of a confirmation's runs on the test set.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models import checkpoints, networks
from tune_cure.reports.export.measurements import (
    ExportError,
    Measurement,
    describe_masking,
    find_doubts,
    find_runs,
    measured_by_confirmation,
    measured_by_search,
    read_run_config,
    run_seed,
)
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training.config import TrainingConfig
from tune_cure.utils import environment
from tune_cure.utils.files import read_tensors, replace_bytes
from tune_cure.utils.formatting import join_words
from tune_cure.utils.registry import did_you_mean

WEIGHTS, SIZES, NETWORK, LOADER, CARD = "model.safetensors", "config.json", "model.py", "load.py", "README.md"
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
for name, of in json.loads(content[8:start]).items():
    values = content[start + of["data_offsets"][0] : start + of["data_offsets"][1]]
    weights[name] = torch.frombuffer(values, dtype=types[of["dtype"]]).view(of["shape"])
model = build(**config["network"])
model.load_state_dict(weights)
model.eval()

if __name__ == "__main__":
    print(model(torch.rand(2, config["network"]["in_channels"], *(config["image_size"] or (32, 32)))))
'''
TENSOR_TYPES = (torch.float32, torch.int64)  # that LOAD reads


@dataclass(frozen=True)
class ExportedModel:
    """A network and what is known of it.

    Attributes:
        title: What it is called, in a few words.
        description: Where its weights come from.
        candidate: By which name a confirmation knows its configuration.
        is_confirmed: Whether its weights are those of a confirmation.
        network: The arguments of `models.build`.
        weights: By their names in the network.
        classes: Their names; None if these are not known.
        image_size: Height and width of the images that it was trained on; None if these are not known.
        config: How it was trained.
        searched: The names of the hyperparameters that were searched.
        train_images: How many it was trained on; None if that is not recorded.
        measured: Of exactly these weights.
        elsewhere: Of other networks that were trained in the same way with other seeds, on the test set.
        warnings: What makes these numbers doubtful.
        evaluation: How the search judged.
        dataset: Its name.
        environment: Where the search ran.
        name: The search's.
        trials: How many of them it has had.
        best_config: Whether best_config.csv and best_config.yaml are of its configuration.
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
    measured: tuple[Measurement, ...]
    elsewhere: tuple[Measurement, ...]
    warnings: tuple[str, ...]
    evaluation: EvaluationConfig
    dataset: str
    environment: Mapping[str, Any]
    name: str
    trials: int
    best_config: bool

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(of.numel() for of in networks.build(**self.network).parameters())

    def describe(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "network": dict(self.network),
            "classes": self.classes,
            "image_size": self.image_size,
            "weights": self.description,
            "training": self.config.model_dump(mode="json", by_alias=True),
            "data": {
                "dataset": self.dataset,
                "source": self.environment.get("data"),
                "train_images": self.train_images,
            },
            "evaluation": self.evaluation.model_dump(mode="json"),
            "measured": [asdict(of) for of in self.measured],
            "measured_with_other_seeds": [asdict(of) for of in self.elsewhere],
            "warnings": self.warnings,
            "versions": self.environment.get("versions"),
        }


def collect_search_model(result: SearchResult) -> ExportedModel:
    """The best model of a search.

    Raises:
        ExportError: There is none yet, or it is not that of the trial that leads.
    """
    file, best, spec = result.directory / run_files.BEST_MODEL, result.best, result.spec
    if best is None or not file.exists():
        raise ExportError(f"{result.directory}: there is no {run_files.BEST_MODEL} yet: there is nothing to export")
    saved = read_tensors(file, torch.device("cpu"))
    found, leads = (saved.get("trial"), saved.get("epoch")), (best.trial, int(best.row["best_epoch"]))
    if found != leads:
        raise ExportError(
            f"{file}: holds trial {found[0]} after epoch {found[1]}, but the best is {leads[0]} after {leads[1]}; "
            f"`tune-cure report {result.directory}` brings it up to date"
        )
    candidate = f"trial-{best.trial}"
    return ExportedModel(
        title=f"{spec.name}, trial {best.trial}",
        description=f"trial {best.trial} of the search {spec.name}, trained with seed {spec.search.seed}: the weights "
        f"after epoch {leads[1]}, its best on the validation images",
        candidate=candidate,
        is_confirmed=False,
        config=spec.training_config(best.hyperparameters),
        train_images=spec.data.train_examples,
        measured=tuple(measured_by_search(spec, best.row)),
        elsewhere=tuple(measured_by_confirmation(result, candidate, None)),
        warnings=tuple(find_doubts(result, candidate, str(best.row["status"]))),
        best_config=True,
        **_network(file, saved, spec.data.image_size),
        **_search(result),
    )


def collect_confirmed_model(result: SearchResult, candidate: str, seed: int | None) -> ExportedModel:
    """A network that a confirmation has trained.

    Args:
        result: The search.
        candidate: Which of those confirmed.
        seed: Of its training; the first of them if None. Not the best: that would be chosen on the test set.

    Raises:
        ExportError: It was not confirmed, not with this seed, has not been judged yet, or diverged.
    """
    names = sorted({folder.parent.name for folder in find_runs(result, "*")})
    if not names:
        raise ExportError(f"{result.directory}: holds no confirmation; `tune-cure confirm` makes one")
    if candidate not in names:
        raise ExportError(
            f"--confirmed {candidate}: is none of those confirmed: {join_words(names)}{did_you_mean(candidate, names)}"
        )
    runs = {run_seed(folder): folder for folder in find_runs(result, candidate)}
    if seed is not None and seed not in runs:
        raise ExportError(f"--seed {seed}: {candidate} was trained with seeds {join_words(map(str, runs))}")
    seed = next(iter(runs)) if seed is None else seed
    folder, best = runs[seed], result.best
    file, config = folder / run_files.JOB_MODEL, read_run_config(folder)
    saved = read_tensors(file, torch.device("cpu"))
    if not saved.get("weights"):
        raise ExportError(f"{file}: the training diverged: there are no weights")
    measured = tuple(measured_by_confirmation(result, candidate, seed))
    if not measured:
        raise ExportError(f"{folder}: has not been judged yet; the same `tune-cure confirm` goes on with it")
    train_images = config["train_images"]
    return ExportedModel(
        title=f"{result.spec.name}, {candidate}, seed {seed}",
        description=f"{config['contender']} (search {result.spec.name}), trained anew for the whole schedule with "
        f"seed {seed} on {train_images:,} training images, those held out for validation included: the weights after "
        f"the last epoch, {saved.get('epoch')}",
        candidate=candidate,
        is_confirmed=True,
        config=config["training"],
        train_images=train_images,
        measured=measured,
        elsewhere=(),
        warnings=tuple(describe_masking(result, folder)),
        best_config=best is not None and candidate == f"trial-{best.trial}",
        **_network(file, saved, result.spec.data.image_size),
        **_search(result),
    )


def write_bundle(exported: ExportedModel, card: str, source: Path, folder: Path) -> None:
    """Writes the folder, which must be empty or not be there.

    Args:
        exported: The network.
        card: The model card in Markdown.
        source: The search's folder.
        folder: Where to.

    Raises:
        ExportError: The folder has something in it, or cannot be written.
    """
    content = {
        WEIGHTS: save({name: of.contiguous() for name, of in exported.weights.items()}),
        SIZES: (json.dumps(exported.describe(), indent=2, allow_nan=False) + "\n").encode(),
        NETWORK: Path(networks.__file__).read_bytes(),
        LOADER: LOAD_CODE.encode(),
        CARD: card.encode(),
    }
    if exported.best_config:
        content |= {name: (source / name).read_bytes() for name in BEST_CONFIG if (source / name).is_file()}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: is not an empty folder; name another one after --to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, of in content.items():
            replace_bytes(folder / name, of)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror}") from error


def _network(file: Path, saved: Mapping[str, Any], side: int | None) -> dict[str, Any]:
    """What `Exported` has of the network itself, once it is seen to be one; `side`: what images were resized to."""
    try:
        network = checkpoints.rebuild(saved)
        classes, size = saved.get("classes"), saved.get("image_size", side and (side, side))
        sizes: dict[str, Any] = {
            "classes": None if classes is None else tuple(map(str, classes)),
            "image_size": None if size is None else (int(size[0]), int(size[1])),
        }
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ExportError(f"{file}: holds no network of this project: {str(error).splitlines()[0]}") from error
    weights = network.state_dict()
    assert all(of.dtype in TENSOR_TYPES for of in weights.values())
    return {"network": dict(saved["model"]), "weights": weights, **sizes}


def _search(result: SearchResult) -> dict[str, Any]:
    """What `Exported` has of the search."""
    return {
        "name": result.spec.name,
        "trials": len(result.trials),
        "searched": tuple(result.spec.space),
        "evaluation": result.spec.evaluation,
        "dataset": result.spec.data.dataset,
        "environment": environment.read(result.directory).content,
    }
