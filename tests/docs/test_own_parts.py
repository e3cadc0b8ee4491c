"""The parts of examples/own_parts do what docs/own_parts.md says, named as `my_parts:NAME`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from tests.support.penalties import penalty
from tune_cure.attacks.registry import ATTACKS
from tune_cure.data import source, splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.proposals import samplers
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load, load_mapping
from tune_cure.training.config import HYPERPARAMETERS, ModelConfig, TrainingConfig, parse_training
from tune_cure.training.schedules import SCHEDULES, learning_rate
from tune_cure.training.trainer import Trainer
from tune_cure.utils.registry import Registry
from tune_cure.utils.yaml_config import SpecError

FOLDER = Path("examples/own_parts").absolute()
SPACE = FOLDER / "own_parts.yaml"
REGISTRIES: list[Registry[object]] = [
    ATTACKS, DATASETS, DIRECTIONS, MODELS, REGULARIZERS, samplers.SAMPLERS, SCHEDULES,
]  # type: ignore[list-item]  # fmt: skip
H = 0.8


@pytest.fixture(autouse=True)
def in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Work where my_parts.py is, and forget its parts afterwards."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_imported", {})
    yield
    sys.modules.pop("my_parts", None)


def arrays(folder: Path) -> DataSpec:
    """A data set of two classes, dark and bright, as `my_parts:arrays` reads it."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = (100 * labels[:, None, None, None] + generator.integers(0, 100, (120, 1, 8, 8))).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels, classes=["dark", "bright"])
    return DataSpec(dataset="my_parts:arrays", root=str(folder), validation=20)


def test_the_own_data_set_is_split_and_its_network_learns_it(tmp_path: Path) -> None:
    splits = data.load(arrays(tmp_path))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 20)
    assert splits.classes == ("dark", "bright")
    config = TrainingConfig(epochs=6, batch_size=20, lr_schedule="fixed", epsilon=0.02, h=H)
    trainer = Trainer(
        config, splits, model=ModelConfig(name="my_parts:mlp", width=16), evaluation=EvaluationConfig(epsilon=0.02)
    )
    for _ in range(config.epochs):
        trainer.train_epoch()
    assert trainer.evaluate()["clean_accuracy"] > 0.9


def test_a_missing_own_data_set_gives_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(source.DataError, match=r"images\.npz: there is no such file"):
        data.load(DataSpec(dataset="my_parts:arrays", root=str(tmp_path), validation=20))


def test_own_penalties_equal_their_closed_form_on_a_quadratic_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIRECTIONS, "diagonal", DIRECTIONS.resolve("my_parts:diagonal"))
    monkeypatch.setitem(REGULARIZERS, "input_gradient", REGULARIZERS.resolve("my_parts:GradientNorm"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softplus(), nn.Linear(3, 3)).double()
    images, labels = torch.rand(5, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])

    def values(name: str) -> torch.Tensor:
        return penalty(name, model, images, labels, h=H, epsilon=0.1, generator=torch.Generator().manual_seed(0))

    def gradients(at: torch.Tensor) -> torch.Tensor:
        at = at.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(at), labels, reduction="sum")
        return torch.autograd.grad(loss, at)[0].flatten(1)

    assert torch.allclose(values("input_gradient"), gradients(images).norm(dim=1))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    corner = H / 4 * (noise - 0.5).sign().double()  # of 16 pixels, each moves by h / 4
    assert torch.allclose(values("diagonal"), (gradients(images + corner) - gradients(images)).norm(dim=1))
    for name in ("diagonal", "input_gradient"):
        model.zero_grad()
        values(name).mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.dim() > 1)


def test_the_own_sampler_spreads_its_proposals_evenly() -> None:
    study = optuna.create_study(sampler=samplers.make_sampler("my_parts:halton", 0, 0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=17)
    drawn = sorted(trial.params["x"] for trial in study.trials[1:])  # Optuna draws the first at random
    assert [int(8 * x) for x in drawn] == [eighth for eighth in range(8) for _ in range(2)]


def test_the_own_schedule_rises_and_falls() -> None:
    assert [learning_rate("my_parts:warmup", at, lr_max=0.2) for at in (0.0, 0.05, 0.1, 1.0)] == [0.0, 0.1, 0.2, 0.0]


def test_the_space_of_own_parts_is_accepted_and_each_of_its_penalties_trains() -> None:
    spec = load(SPACE, import_parts=True)
    assert type(samplers.make_sampler(spec.search.sampler, 3, 0)).__name__ == "RandomSampler"
    assert {"power", "first_step"} <= set(HYPERPARAMETERS)
    splits = data.load(spec.data)
    for values in ({"regularizer": "cure"}, {"regularizer": "my_parts:GradientNorm", "power": 1.5}):
        config = spec.training_config({**values, "lambda": 0.01})
        trainer = Trainer(config, splits, model=spec.model, evaluation=spec.evaluation)
        assert trainer.terms.attack.first_step == 0.75  # type: ignore[attr-defined]
        assert trainer.train_epoch()["curvature"] > 0
        assert trainer.evaluate()["clean_accuracy"] > 0.5


def test_the_own_method_stands_for_the_own_attack_and_penalty() -> None:
    space = {"training": {"method": "my_parts:two_steps", "epochs": 2}, "space": {"method": "default"}}
    sections = {"name": "own-method", "data": {"dataset": "my_parts:stripes"}, "model": "my_parts:two_layers"}
    spec = load_mapping({**sections, **space, "start_from": [{"method": "default"}]}, import_parts=True)
    assert (spec.training["attack"], list(spec.space)) == ("my_parts:TwoSteps", ["lambda", "first_step"])
    assert spec.start_from == [{"lambda": 0.01, "first_step": 0.75}]
    assert spec.training_config(spec.start_from[0]).regularizer == "my_parts:GradientNorm"


def test_an_own_hyperparameter_is_proposed_only_where_it_has_an_effect() -> None:
    spec = load(SPACE, import_parts=True)
    drawn = {"regularizer": "cure", "power": 1.5, "lambda": 0.01}
    assert spec.propose(drawn.__getitem__) == {"regularizer": "cure", "lambda": 0.01}
    drawn["regularizer"] = "my_parts:GradientNorm"
    assert spec.propose(drawn.__getitem__) == drawn


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.power={uniform: [0, 2]}", r"space\.power\.uniform\[0\]: input should be greater than or equal to 1"),
        ("training.first_step=-1", r"training\.first_step: input should be greater than 0, but found -1"),
        ("training.first_stp=1", r"training\.first_stp: unknown key.*did you mean 'first_step'\?"),
        ("training.attack=my_parts:TwoStep", r"training\.attack: attack .* has no TwoStep; did you mean 'TwoSteps'\?"),
        ("training.attack=my_parts:mlp", r"training\.attack: attack 'my_parts:mlp': a subclass of Attack is needed"),
        ("training.attack=no_parts:X", r"training\.attack: attack 'no_parts:X': module no_parts cannot be imported"),
        ("model.name=my_parts:mpl", r"model\.name: network 'my_parts:mpl': module my_parts has no mpl; did you mean"),
    ],
)
def test_a_mistake_in_an_own_part_gives_an_error_of_one_line(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(SPACE, [override], import_parts=True)


def test_reading_a_run_imports_none_of_its_own_parts(tmp_path: Path) -> None:
    spec = load(SPACE, import_parts=True)
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    for registry in REGISTRIES:
        registry._imported.clear()
    sys.modules.pop("my_parts")
    read = load(tmp_path / "spec.yaml")
    assert "my_parts" not in sys.modules
    assert read.training["first_step"] == 0.75
    assert read.space["power"].values == [1, 2]
    config = read.training_config({"regularizer": "my_parts:GradientNorm", "power": 1.25, "lambda": 0.1})
    assert config.model_dump()["power"] == 1.25
    assert read.training_config({"regularizer": "cure"}).regularizer == "cure"
    assert yaml.safe_load(read.to_yaml()) == yaml.safe_load(spec.to_yaml())
    assert "my_parts" not in sys.modules


def test_the_configuration_of_a_run_with_an_own_part_survives_writing_and_reading() -> None:
    config = parse_training({"regularizer": "my_parts:GradientNorm", "power": 2.0})
    assert parse_training(config.model_dump(by_alias=True)) == config
    REGULARIZERS.resolve("my_parts:GradientNorm")
    config = parse_training({"regularizer": "my_parts:GradientNorm", "power": 2.0})
    assert config.model_dump()["power"] == 2.0
    assert parse_training(config.model_dump(by_alias=True)) == config
    assert "power" not in parse_training({"regularizer": "cure"}).model_dump()


@pytest.mark.ray
def test_the_example_of_own_parts_searches_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # -P: the folder is not put on the path, as it is not by the installed command.
    start = [sys.executable, "-P", "-m", "tune_cure", "search"]
    command = [*start, "--space", "own_parts.yaml", "--output", folder]
    environment = os.environ | {"TUNE_CURE_CACHE": str(tmp_path / "cache")}
    subprocess.run(command, check=True, timeout=300, cwd=FOLDER, env=environment)
    result = SearchResult(folder)  # read from elsewhere: nothing is imported
    assert "my_parts" not in sys.modules
    assert (result.trials["status"] == "completed").all()
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 4
    assert (table["power"].isna() == (table["regularizer"] == "cure")).all()
    assert table["regularizer"].nunique() == 2
