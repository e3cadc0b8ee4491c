"""One training run without Ray: its configuration, its epochs, and the files in its folder.

What trains and judges is imported when a run begins, so that an error in a run's YAML does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from tune_cure.attacks.config import is_linf
from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import EPOCH_METRICS, METRICS
from tune_cure.training.config import AnyTrainingConfig, ModelConfig, TrainingConfig, import_parts
from tune_cure.training.delta import expand_delta
from tune_cure.training.interactions import find_conflict
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import FolderError, read_tensors, replace_tensors, replace_text, replace_weights
from tune_cure.utils.registry import PartError
from tune_cure.utils.schema import MAX_SEED, Schema
from tune_cure.utils.yaml_config import ProblemError, by_path, differences, first_problem

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from tune_cure.data.splits import Splits

DEFAULT_DATASET = "cifar10"
CONFIG, LOG, LAST, BEST, TEST = "config.yaml", "epochs.csv", "last.pt", "best_model.pt", "test.csv"
BEST_WEIGHTS = "best_model.safetensors"
COLUMNS = (*EPOCH_METRICS, "diverged")
"""Columns of epochs.csv."""


class RunSpec(Schema):
    """Configuration of one training run."""

    parts: list[str] = Field(default_factory=list, description="As in a search space.")
    data: DataSpec = Field(default=DataSpec(dataset=DEFAULT_DATASET), description="As in a search space.")
    model: ModelConfig = Field(default=ModelConfig(name="preact_resnet18"), description="As in a search space.")
    training: AnyTrainingConfig = Field(default=TrainingConfig(), description="The hyperparameters.")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="As in a search space.")
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="Seed of the weights, the order of the data and all randomness."
    )
    early_stop: bool = Field(default=False, description="End at catastrophic overfitting.")
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads, on which the last digits of results depend; if absent, a fast number is measured.",
    )

    def to_yaml(self) -> str:
        """Return YAML with every value written out, which `resolve` reads as the same run."""
        without = None if self.parts else {"parts"}
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True, exclude=without), sort_keys=False)


def add_dataset_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Add to the sections of a run what its data set brings for keys that are absent.

    What is there already stays. The radius is one in the L∞ norm, so a section with another norm gets none.

    Args:
        content: Sections as `resolve` takes them, changed in place.

    Returns:
        The values that were added, by the path of their key.

    Raises:
        ProblemError: There is no such data set, or its module cannot be imported.
    """
    data = content.setdefault("data", {})
    if not isinstance(data, dict) or not isinstance(data.setdefault("dataset", DEFAULT_DATASET), str):
        return {}  # `resolve` says what is wrong
    try:
        dataset = DATASETS.resolve(data["dataset"])
    except PartError as error:
        raise ProblemError("data.dataset", str(error)) from error
    defaults: list[tuple[str, str, Any]] = [("model", "name", dataset.network)]
    if dataset.validation is not None:
        defaults.append(("data", "validation", dataset.validation))
    for name in ("training", "evaluation"):
        section = content.get(name)
        if not isinstance(section, dict) or is_linf(section):
            defaults.append((name, "epsilon", dataset.epsilon))
    defaults.append(("evaluation", "examples", dataset.examples))
    added = {}
    for name, key, value in defaults:
        section = content.setdefault(name, {})
        if isinstance(section, dict) and key not in section:
            added[f"{name}.{key}"] = section[key] = value
    return added


def resolve(content: Mapping[str, Any]) -> RunSpec:
    """Return the run that a mapping of sections describes, which is to be trained.

    The user's own attack and penalty are imported.

    Raises:
        ProblemError: A key or a value is wrong, or two values contradict each other.
    """
    if isinstance(content.get("training"), dict):
        import_parts(content["training"], "training")
    try:
        spec = RunSpec.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, RunSpec) from error
    if problem := find_conflict(spec.training):
        raise ProblemError(f"training.{problem[0]}", problem[1])
    return spec


class Run:
    """A training run and its folder.

    Args:
        spec: The run's configuration.
        splits: The data that `spec.data` names.
        directory: The run's folder, which must exist.
        device: Device to train on.

    Attributes:
        trainer: State of the training.
        log: A row of `COLUMNS` for each epoch so far.
    """

    def __init__(self, spec: RunSpec, splits: Splits, directory: Path, device: torch.device | str) -> None:
        from tune_cure.training.trainer import Trainer

        self.spec, self.directory = spec, directory
        self.trainer = Trainer(
            spec.training, splits, model=spec.model, evaluation=spec.evaluation, device=device, seed=spec.seed
        )
        self.log: list[dict[str, Any]] = []

    def restore(self) -> None:
        """Continue from the last saved epoch, bit for bit on the CPU; start anew if none was saved.

        Raises:
            FolderError: The saved state is damaged, or it is that of a run with another configuration.
        """
        file = self.directory / LAST
        if not file.exists():
            return
        saved = read_tensors(file, self.trainer.device)
        try:
            # A key that an earlier version did not have counts as its default of today, which does the same.
            before = expand_delta(saved["run"], section="training.")
            change = next(differences(_values_by_key(RunSpec()) | before, _values_by_key(self.spec)), None)
            if not change:
                self._load(saved)
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise FolderError(f"{file}: the run cannot go on from it: {first_line(error)}") from error
        if change:
            key, before, now = change
            message = f"{key} is {now} now, but was {before} when the run was begun"
            raise FolderError(f"{self.directory / CONFIG}: {message}; undo that, or begin a new run")

    def _load(self, saved: dict[str, Any]) -> None:
        """Continue from the content of last.pt. What is wrong with it raises an error of almost any kind."""
        self.trainer.load_state_dict(saved["trainer"])
        self.log = saved["log"]
        values = [row.get(column, "missing") for row in self.log for column in COLUMNS]
        if len(self.log) != self.trainer.epoch or not all(isinstance(value, int | float | None) for value in values):
            raise ValueError("its log is not that of the epochs that were trained")
        if self.trainer.best_epoch:
            self._save_best()

    @property
    def finished(self) -> bool:
        """Return True if the training is over: all epochs are trained, it diverged, or `early_stop` ended it."""
        if not self.log:
            return False
        last = self.log[-1]
        is_stopped = self.spec.early_stop and last["catastrophic_overfitting"]
        return self.trainer.epoch >= self.spec.training.epochs or bool(last["diverged"] or is_stopped)

    def train_epoch(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Train and evaluate one epoch, save everything, and return the log's new row.

        A diverged network is not evaluated.

        Args:
            on_step: See `Trainer.train_epoch`.
        """
        import pandas as pd

        (self.directory / TEST).unlink(missing_ok=True)  # it describes the epoch that was the last until now
        row = self.trainer.train_epoch(on_step)
        if not row["diverged"]:
            row |= self.trainer.evaluate()
        self.log.append({name: row.get(name) for name in COLUMNS})
        replace_text(self.directory / LOG, format_csv(pd.DataFrame(self.log, columns=list(COLUMNS))))
        if self.trainer.best_epoch == self.trainer.epoch:
            self._save_best()
        state = {"run": _values_by_key(self.spec), "trainer": self.trainer.state_dict(), "log": self.log}
        replace_tensors(self.directory / LAST, state)
        return self.log[-1]

    def _save_best(self) -> None:
        """Write the network of the best epoch with its hyperparameters and accuracies, and its weights alone."""
        best = {**self.trainer.best_model(), "hyperparameters": self.spec.training.model_dump(by_alias=True)}
        accuracies = self.trainer.accuracies[self.trainer.best_epoch]
        metrics = {name: accuracies[name] for name in ("clean_accuracy", "pgd_accuracy")}
        replace_tensors(self.directory / BEST, {**best, "metrics": metrics})
        replace_weights(self.directory / BEST_WEIGHTS, best["weights"])

    def evaluate_on_test(self) -> pd.DataFrame:
        """Evaluate the networks of the best and the last epoch on all test images, and write test.csv.

        Returns:
            The table, a row for each network. A network that diverged in the last epoch has none.
        """
        import pandas as pd

        from tune_cure.evaluation.metrics import evaluate
        from tune_cure.models import checkpoints

        trainer = self.trainer
        best = checkpoints.rebuild(trainer.best_model(), device=trainer.device)
        test = trainer.splits.test.to(trainer.device)
        networks = [("best", trainer.best_epoch, best), ("last", trainer.epoch, trainer.judged_model)]
        rows = []
        for name, epoch, network in networks[:1] if self.log[-1]["diverged"] else networks:
            metrics = evaluate(network, test, self.spec.evaluation)
            rows.append({"weights": name, "epoch": epoch, "examples": len(test), **metrics})
        frame = pd.DataFrame(rows, columns=["weights", "epoch", "examples", *METRICS])
        replace_text(self.directory / TEST, format_csv(frame))
        return frame


def _values_by_key(spec: RunSpec) -> dict[str, Any]:
    """Return each value of a run by the path of its key, without paths of data and parts, which may move."""
    return by_path(spec.model_dump(mode="json", by_alias=True, exclude={"parts": True, "data": {"root"}}))
