import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from tune_cure.data import datasets, source, splits as data
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models import registry
from tune_cure.regularizers import cure, penalties
from tune_cure.search.proposals import samplers
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

FOLDER = Path("examples/own_parts")
H = 0.8


def part(file: str, name: str) -> Callable[..., Any]:
    """What a user would copy out of an example."""
    found: Callable[..., Any] = runpy.run_path(str(FOLDER / file))[name]
    return found


def arrays(folder: Path) -> DataSpec:
    """A data set of two classes, dark and bright, as the example's file."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = (100 * labels[:, None, None, None] + generator.integers(0, 100, (120, 1, 8, 8))).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels, classes=["dark", "bright"])
    return DataSpec(dataset="arrays", root=str(folder), validation=20)


@pytest.fixture
def with_arrays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(datasets.DATASETS, "arrays", source.Dataset(part("data_set.py", "find_arrays")))


@pytest.mark.usefixtures("with_arrays")
def test_the_data_set_is_split_and_its_network_learns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "mlp", part("network.py", "mlp"))
    splits = data.load(arrays(tmp_path))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 20)
    assert splits.classes == ("dark", "bright")
    config = TrainingConfig(epochs=6, batch_size=20, lr_schedule="fixed", epsilon=0.02, h=H)
    trainer = Trainer(
        config, splits, model=ModelConfig(name="mlp", width=16), evaluation=EvaluationConfig(epsilon=0.02)
    )
    for _ in range(config.epochs):
        trainer.train_epoch()
    assert trainer.evaluate()["clean_accuracy"] > 0.9


@pytest.mark.usefixtures("with_arrays")
def test_a_data_set_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(source.DataError, match=r"images\.npz: there is no such file"):
        data.load(DataSpec(dataset="arrays", root=str(tmp_path), validation=20))


def test_the_penalties_are_what_they_say_on_a_quadratic_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cure.DIRECTIONS, "diagonal", part("penalty.py", "diagonal"))
    monkeypatch.setitem(penalties.OTHER_PENALTIES, "input_gradient", part("penalty.py", "input_gradient_norm"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softplus(), nn.Linear(3, 3)).double()
    images, labels = torch.rand(5, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])

    def values(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return penalties.penalty(
            name, model, images, labels, h=H, epsilon=0.1, norm="linf", generator=generator, statistics="running"
        )

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


def test_the_sampler_spreads_its_draws_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(samplers.SAMPLERS, "halton", part("sampler.py", "halton"))
    study = optuna.create_study(sampler=samplers.make_sampler("halton", 0, 0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=17)
    drawn = sorted(trial.params["x"] for trial in study.trials[1:])  # Optuna draws the first at random
    assert [int(8 * x) for x in drawn] == [eighth for eighth in range(8) for _ in range(2)]
