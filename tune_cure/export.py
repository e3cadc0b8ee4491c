"""A network in a folder of its own, for people without this package: weights, sizes, a loader, what was measured.

What the folder says was measured belongs to exactly the weights in it: those of a search's best trial were measured on
validation images, those of a confirmation's runs on the test set.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from tune_cure import masking, models, statistics
from tune_cure.config import TrainingConfig
from tune_cure.confirm import CONFIG, FOLDER, MODEL, OUTCOMES
from tune_cure.environment import FILE as ENVIRONMENT
from tune_cure.evaluation import EvaluationConfig
from tune_cure.files import FolderError, read_tensors, replace_bytes
from tune_cure.reading import parse
from tune_cure.results import UNSOUND, SearchResult, judged_examples
from tune_cure.robustness import NAMES, Outcomes
from tune_cure.schema import did_you_mean
from tune_cure.spec import SearchSpec
from tune_cure.words import ATTACK_WORDS, STATUS_WORDS, listed

WEIGHTS, SIZES, NETWORK, LOADER, CARD = "model.safetensors", "config.json", "model.py", "load.py", "README.md"
BEST_CONFIG = ("best_config.csv", "best_config.yaml")
BEST_MODEL = "best_model.pt"
JUDGED = re.compile(
    r"(linf|l2)-([0-9.]+(?:e[+-][0-9]+)?)-([0-9]+)"
)  # a folder of what was found at a radius, see `Job.judged`

LOAD = '''"""`from load import model`: the network, by torch alone. `python load.py` runs it on two random images."""

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
TYPES = (torch.float32, torch.int64)  # that LOAD reads


class ExportError(FolderError):
    """Nothing to export, or nowhere to. Its text is one line."""


@dataclass(frozen=True)
class Measurement:
    """An accuracy.

    Attributes:
        on: Which images: validation, fresh validation or test.
        attack: In words.
        norm: Of the ball.
        epsilon: Its radius in pixel units; of clean accuracy that of the attacks beside it.
        examples: How many images.
        accuracy: Of the exported network, a fraction; None if `mean` is of others.
        mean: Over the seeds of a confirmation.
        deviation: The sample standard deviation over them; None of a single seed.
        seeds: How many these are; 0 if there was no confirmation.
    """

    on: str
    attack: str
    norm: str
    epsilon: float
    examples: int
    accuracy: float | None
    mean: float | None = None
    deviation: float | None = None
    seeds: int = 0


@dataclass(frozen=True)
class Exported:
    """A network and what is known of it.

    Attributes:
        title: What it is called, in a few words.
        description: Where its weights come from.
        contender: By which name a confirmation knows its configuration.
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
    contender: str
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
        return sum(of.numel() for of in models.build(**self.network).parameters())

    def described(self) -> dict[str, Any]:
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


def of_search(result: SearchResult) -> Exported:
    """The best model of a search.

    Raises:
        ExportError: There is none yet, or it is not that of the trial that leads.
    """
    file, best, spec = result.directory / BEST_MODEL, result.best, result.spec
    if best is None or not file.exists():
        raise ExportError(f"{result.directory}: there is no {BEST_MODEL} yet: there is nothing to export")
    saved = read_tensors(file, torch.device("cpu"))
    found, leads = (saved.get("trial"), saved.get("epoch")), (best.trial, int(best.row["best_epoch"]))
    if found != leads:
        raise ExportError(
            f"{file}: holds trial {found[0]} after epoch {found[1]}, but the best is {leads[0]} after {leads[1]}; "
            f"`tune-cure report {result.directory}` brings it up to date"
        )
    contender = f"trial-{best.trial}"
    return Exported(
        title=f"{spec.name}, trial {best.trial}",
        description=f"trial {best.trial} of the search {spec.name}, trained with seed {spec.search.seed}: the weights "
        f"after epoch {leads[1]}, its best on the validation images",
        contender=contender,
        is_confirmed=False,
        config=spec.training_config(best.hyperparameters),
        train_images=spec.data.train_examples,
        measured=tuple(_by_search(spec, best.row)),
        elsewhere=tuple(_confirmed(result, contender, None)),
        warnings=tuple(_doubts(result, contender, str(best.row["status"]))),
        best_config=True,
        **_network(file, saved, spec.data.image_size),
        **_search(result),
    )


def of_confirmation(result: SearchResult, contender: str, seed: int | None) -> Exported:
    """A network that a confirmation has trained.

    Args:
        result: The search.
        contender: Which of those confirmed.
        seed: Of its training; the first of them if None. Not the best: that would be chosen on the test set.

    Raises:
        ExportError: It was not confirmed, not with this seed, has not been judged yet, or diverged.
    """
    names = sorted({folder.parent.name for folder in _runs(result, "*")})
    if not names:
        raise ExportError(f"{result.directory}: holds no confirmation; `tune-cure confirm` makes one")
    if contender not in names:
        raise ExportError(
            f"--confirmed {contender}: is none of those confirmed: {listed(names)}{did_you_mean(contender, names)}"
        )
    runs = {_seed(folder): folder for folder in _runs(result, contender)}
    if seed is not None and seed not in runs:
        raise ExportError(f"--seed {seed}: {contender} was trained with seeds {listed(map(str, runs))}")
    seed = next(iter(runs)) if seed is None else seed
    folder, best = runs[seed], result.best
    file, config = folder / MODEL, _run_config(folder)
    saved = read_tensors(file, torch.device("cpu"))
    if not saved.get("weights"):
        raise ExportError(f"{file}: the training diverged: there are no weights")
    measured = tuple(_confirmed(result, contender, seed))
    if not measured:
        raise ExportError(f"{folder}: has not been judged yet; the same `tune-cure confirm` goes on with it")
    train_images = config["train_images"]
    return Exported(
        title=f"{result.spec.name}, {contender}, seed {seed}",
        description=f"{config['contender']} (search {result.spec.name}), trained anew for the whole schedule with "
        f"seed {seed} on {train_images:,} training images, those held out for validation included: the weights after "
        f"the last epoch, {saved.get('epoch')}",
        contender=contender,
        is_confirmed=True,
        config=config["training"],
        train_images=train_images,
        measured=measured,
        elsewhere=(),
        warnings=tuple(_signs(result, folder)),
        best_config=best is not None and contender == f"trial-{best.trial}",
        **_network(file, saved, result.spec.data.image_size),
        **_search(result),
    )


def write(exported: Exported, card: str, source: Path, folder: Path) -> None:
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
        SIZES: (json.dumps(exported.described(), indent=2, allow_nan=False) + "\n").encode(),
        NETWORK: Path(models.__file__).read_bytes(),
        LOADER: LOAD.encode(),
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
        network = models.rebuild(saved)
        classes, size = saved.get("classes"), saved.get("image_size", side and (side, side))
        sizes: dict[str, Any] = {
            "classes": None if classes is None else tuple(map(str, classes)),
            "image_size": None if size is None else (int(size[0]), int(size[1])),
        }
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ExportError(f"{file}: holds no network of this project: {str(error).splitlines()[0]}") from error
    weights = network.state_dict()
    assert all(of.dtype in TYPES for of in weights.values())
    return {"network": dict(saved["model"]), "weights": weights, **sizes}


def _search(result: SearchResult) -> dict[str, Any]:
    """What `Exported` has of the search."""
    return {
        "name": result.spec.name,
        "trials": len(result.trials),
        "searched": tuple(result.spec.space),
        "evaluation": result.spec.evaluation,
        "dataset": result.spec.data.dataset,
        "environment": _environment(result.directory),
    }


def _environment(directory: Path) -> dict[str, Any]:
    file = directory / ENVIRONMENT
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ExportError(f"{file}: is damaged: {error}") from error


def _by_search(spec: SearchSpec, row: "pd.Series[Any]") -> Iterator[Measurement]:
    """What a search measured of its best weights."""
    evaluation = spec.evaluation
    attacks = {"clean": "clean", "fgsm": "FGSM", "pgd": _pgd(evaluation)}
    for name, words in attacks.items():
        of = row[f"{name}_accuracy_best"]
        if pd.notna(of):
            yield Measurement(
                "validation", words, evaluation.norm, evaluation.epsilon, judged_examples(spec), float(of)
            )
    if pd.notna(row["fresh_pgd_accuracy"]):
        again = spec.rescoring
        for name, words in {"clean": "clean", "pgd": _pgd(again)}.items():
            of = float(row[f"fresh_{name}_accuracy"])
            yield Measurement("fresh validation", words, again.norm, again.epsilon, int(row["fresh_examples"]), of)


def _pgd(evaluation: EvaluationConfig) -> str:
    restarts = f"-{evaluation.restarts}" if evaluation.restarts > 1 else ""
    ascends = "" if evaluation.loss == "cross_entropy" else f" on the {evaluation.loss} loss"
    return f"PGD-{evaluation.steps}{restarts}{ascends}"


def _doubts(result: SearchResult, contender: str, status: str) -> Iterator[str]:
    """What makes the numbers of a search's best model doubtful: how its training ended, what a confirmation saw."""
    if status in UNSOUND:
        yield f"Its trial {STATUS_WORDS[status]} later on: do not expect the same of another training."
    for run in _runs(result, contender):
        yield from (f"Trained again with seed {_seed(run)}: {sign}" for sign in _signs(result, run))


def _runs(result: SearchResult, contender: str) -> list[Path]:
    """The folders of trained runs, by seed. `contender` is * for all."""
    here = result.directory.resolve()
    found = (file.parent for file in (result.directory / FOLDER).glob(f"{contender}/seed-*/{MODEL}"))
    inside = [folder for folder in found if (folder / MODEL).resolve().is_relative_to(here)]
    return sorted((folder for folder in inside if folder.name.removeprefix("seed-").isdigit()), key=_seed)


def _seed(run: Path) -> int:
    return int(run.name.removeprefix("seed-"))


def _run_config(run: Path) -> dict[str, Any]:
    """What a confirmation wrote of a run, `training` as a `TrainingConfig`."""
    file = run / CONFIG
    try:
        content = parse(file.read_text(encoding="utf-8"))
        config = TrainingConfig.model_validate(content["training"])
        return {
            "contender": str(content["contender"]),
            "train_images": int(content["train_images"]),
            "training": config,
        }
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:  # of pydantic's the last, too
        raise ExportError(f"{file}: does not say how the run was trained: {str(error).splitlines()[0]}") from error


Judged = tuple[str, float, int]
"""Norm, radius and number of test images."""


def _found(result: SearchResult, run: Path) -> dict[Judged, dict[str, NDArray[Any]]]:
    """What a confirmation found of a run, the search's own radius first."""
    evaluation = result.spec.evaluation
    found: dict[Judged, dict[str, NDArray[Any]]] = {}
    for file in run.glob(f"*/{OUTCOMES}"):
        if match := JUDGED.fullmatch(file.parent.name):
            try:
                norm, epsilon, examples = match[1], float(match[2]), int(match[3])
                with np.load(io.BytesIO(file.read_bytes())) as content:
                    outcomes = {name: content[name] for name in content.files}
                masking.signs(_outcomes(outcomes))
            except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
                raise ExportError(f"{file}: is damaged: {error}") from error
            own = norm == evaluation.norm and match[2] == f"{evaluation.epsilon:.6g}"  # rounded, as a folder's name
            found[norm, evaluation.epsilon if own else epsilon, examples] = outcomes
    return dict(sorted(found.items(), key=lambda of: (of[0][1] != evaluation.epsilon, *of[0])))


def _confirmed(result: SearchResult, contender: str, seed: int | None) -> Iterator[Measurement]:
    """What a confirmation found with one seed, or without one the means alone."""
    runs = {_seed(run): _found(result, run) for run in _runs(result, contender)}
    chosen = dict.fromkeys(judged for found in runs.values() for judged in found) if seed is None else runs[seed]
    for judged in chosen:
        for name in NAMES:
            of = {run: found[judged][name].mean() for run, found in runs.items() if name in found.get(judged, {})}
            if of and (seed is None or seed in of):
                mean, deviation = statistics.mean_and_deviation(np.array(list(of.values()), dtype=float))
                yield Measurement(
                    "test", ATTACK_WORDS[name], *judged, None if seed is None else float(of[seed]), mean,
                    deviation if len(of) > 1 else None, len(of),
                )  # fmt: skip


def _signs(result: SearchResult, run: Path) -> Iterator[str]:
    """The signs of masked gradients in a run."""
    for (_, epsilon, _), found in _found(result, run).items():
        for sign in masking.signs(_outcomes(found)):
            yield f"at epsilon {epsilon:.4g}: {sign}"


def _outcomes(found: Mapping[str, NDArray[Any]]) -> Outcomes:
    return Outcomes({name: found[name] for name in NAMES if name in found}, float(found["zero_gradient"]))
