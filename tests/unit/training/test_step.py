"""Steps of networks of which only some parameters are trained."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from tune_cure.data import splits as splits_module
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models import registry
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer, check_network

EVALUATION = EvaluationConfig(epsilon=0.1, steps=1, examples=20)
PLAIN = {"momentum": 0.0, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return splits_module.load(DataSpec(dataset="digits", validation=100, train_examples=64))


def with_stem(num_classes: int, in_channels: int, width: int | None = None, *, frozen: str = "") -> nn.Sequential:
    """A network of which the parameters with `frozen` in their names are constant: `0.` is the stem."""
    network = nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Conv2d(4, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 3 * 3, num_classes),
    )  # fmt: skip
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not frozen or frozen not in name)
    return network


def trainer(splits: Splits, frozen: str, **hyperparameters: object) -> Trainer:
    registry.MODELS["stem"] = partial(with_stem, frozen=frozen)
    check_network(ModelConfig(name="stem"), splits)
    values = {"epochs": 2, "batch_size": 32, "epsilon": 0.1, "lambda": 0.5, **hyperparameters}
    model = ModelConfig(name="stem")
    return Trainer(TrainingConfig.model_validate(values), splits, model=model, evaluation=EVALUATION)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "stem", with_stem)  # which removes it after the test


def step(run: Trainer) -> None:
    pixels, labels = run.splits.train.gather(torch.arange(32))
    run.model.train()
    run.step(to_float(pixels), labels, 0, Stopwatch(run.device))


@pytest.mark.parametrize("frozen", ["0.", "weight"])
@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"regularizer": "none"},
        {},
        {"amp": "bf16"},
        {"penalty_two_sided": False, "gradient_clip": 1e3, "decay_vectors": False},
        {"direction": "fgsm", "init": "zero", "attack_statistics": "batch"},
        {"regularizer": "gat", "attack": "guided"},
        {"attack": "free", "replays": 2},
    ],
    ids=str,
)
def test_frozen_parameters_stay_and_the_others_step_as_if_all_were_trained(
    splits: Splits, hyperparameters: dict[str, object], frozen: str
) -> None:
    part, whole = (trainer(splits, name, **PLAIN, **hyperparameters) for name in (frozen, ""))
    before = copy.deepcopy(part.model)
    step(part)
    step(whole)
    named = zip(before.named_parameters(), part.model.parameters(), whole.model.parameters(), strict=True)
    for (_, start), mine, other in named:
        if mine.requires_grad:
            torch.testing.assert_close(mine - start, other - start, rtol=1e-4, atol=1e-6)
            assert not torch.equal(mine, start)
        else:
            assert torch.equal(mine, start)


def test_awp_leaves_frozen_weights_alone_and_does_nothing_without_others(splits: Splits) -> None:
    stem = trainer(splits, "0.", awp_gamma=0.05, **PLAIN)
    before = [parameter.clone() for parameter in stem.model[1][0].parameters()]
    step(stem)
    assert all(map(torch.equal, before, stem.model[1][0].parameters()))
    perturbed, plain = (trainer(splits, "weight", **PLAIN, awp_gamma=gamma) for gamma in (0.05, 0.0))
    step(perturbed)
    step(plain)
    assert all(map(torch.equal, perturbed.model.parameters(), plain.model.parameters()))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_network_with_a_frozen_stem_trains_on_from_a_saved_state(splits: Splits, optimizer: str) -> None:
    whole, begun, resumed = (trainer(splits, "0.", optimizer=optimizer, averaging="ema") for _ in range(3))
    for run in (whole, begun):
        run.train_epoch()
        run.evaluate()
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    whole.train_epoch()
    resumed.train_epoch()
    assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))
    assert all(map(torch.equal, whole.judged_model.state_dict().values(), resumed.judged_model.state_dict().values()))
