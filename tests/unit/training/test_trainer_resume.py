"""A Trainer saved after any epoch goes on as if it had never stopped, whatever it was configured with."""

import io
import itertools
from typing import Any

import pytest
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.training.trainer import Trainer

EPOCHS = 6
TIMINGS = (
    "train_seconds", "attack_seconds", "penalty_seconds", "eval_seconds", "images_per_second", "device_memory_mb",
)  # fmt: skip


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=128))


def trainer(splits: Splits, seed: int = 0, **hyperparameters: object) -> Trainer:
    values = {"epochs": EPOCHS, "batch_size": 64, "epsilon": 0.1, "lr_max": 0.05, "lambda": 0.02, **hyperparameters}
    return Trainer(
        TrainingConfig.model_validate(values),
        splits,
        model=ModelConfig(name="small_cnn", width=4),
        evaluation=EvaluationConfig(epsilon=0.1, steps=2, examples=20),
        seed=seed,
    )


def epoch(run: Trainer) -> tuple[dict[str, Any], bytes]:
    """Trains an epoch: its metrics but for timings, and all of the state as it would be saved."""
    metrics = run.train_epoch() | run.evaluate()
    file = io.BytesIO()
    torch.save(run.state_dict(), file)
    return {name: value for name, value in metrics.items() if name not in TIMINGS}, file.getvalue()


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def check(splits: Splits, **hyperparameters: object) -> None:
    """Stops after every epoch and goes on in a new Trainer; each time the next epoch is the uninterrupted one's."""
    whole = trainer(splits, **hyperparameters)
    expected = [epoch(whole) for _ in range(EPOCHS)]
    for (_, saved), (metrics, state) in itertools.pairwise(expected):
        resumed = trainer(splits, seed=99, **hyperparameters)
        resumed.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
        found, went_on = epoch(resumed)
        assert found == metrics
        states = (torch.load(io.BytesIO(content), weights_only=True) for content in (went_on, state))
        assert equal(*states)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resuming_changes_nothing_with_any_optimiser(splits: Splits, optimizer: str) -> None:
    check(splits, optimizer=optimizer, lr_max=0.05 if optimizer == "sgd" else 0.005)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resuming_changes_nothing_with_any_schedule(splits: Splits, schedule: str) -> None:
    check(splits, lr_schedule=schedule)


@pytest.mark.parametrize(
    "options",
    [
        {"averaging": "ema"},
        {"averaging": "swa", "swa_start": 0.4},
        {"nesterov": True, "gradient_clip": 0.5},
        {"init": "previous", "delta": "fgsm"},
        {"delta": "random", "norm": "l2", "penalty_fraction": 0.5, "penalty_every": 2},
        {"attack": "pgd", "delta": "llr", "label_smoothing": 0.1},
        {"clean_weight": 0.5, "trades_weight": 1.0, "hat_weight": 0.5, "penalty_statistics": "batch"},
        {"amp": "fp16"},
        {"attack": "guided", "guide": "nuclear", "guide_every": 3, "init": "bernoulli", "regularizer": "nuat"},
        {"attack": "ssat", "init": "bernoulli", "regularizer": "none"},
        {"boosted_weight": 1.0, "mart_weight": 5.0, "attack": "pgd", "lambda": 0},
        {"regularizer": "fgsm_pgi", "init": "previous"},
        {"regularizer": "nuat", "clean_weight": 1.0, "adversarial_weight": 0.0, "penalty_every": 2},
        {"attack": "fgsm_pgi", "regularizer": "fgsm_pgi", "attack_statistics": "batch", "pgi_reset": 3},
        {"attack": "free", "replays": 4, "lambda": 0},
        {"attack": "free", "replays": 3, "averaging": "ema", "amp": "fp16", "regularizer": "elle"},
        {"regularizer": "aaer", "lambda_schedule": "ramp", "penalty_every": 2},
        {"awp_gamma": 0.01, "awp_start": 0.4, "lambda": 0},
        {"awp_gamma": 0.005, "regularizer": "cure", "lambda_schedule": "late", "amp": "fp16"},
        {"attack": "guided", "regularizer": "gat", "clean_weight": 1.0, "lambda_schedule": "ramp"},
        {"regularizer": "elle_a", "elle_decay": 0.9, "elle_sensitivity": 0.5},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_resuming_changes_nothing_with_any_other_part_that_keeps_a_state(
    splits: Splits, options: dict[str, object]
) -> None:
    check(splits, **options)
