import pytest
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.regularizers.regularizer import PenaltyStep
from tune_cure.regularizers.schedules import LAMBDA_SCHEDULES
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.interactions import explain_short_training, inactive_hyperparameters
from tune_cure.training.trainer import Trainer
from tune_cure.utils.formatting import format_count


@pytest.mark.parametrize("name", LAMBDA_SCHEDULES)
def test_it_rises_to_all_of_lambda(name: str) -> None:
    shares = [LAMBDA_SCHEDULES[name](epoch / 30) for epoch in range(30)]
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == 1


def test_ramp_is_what_nuat_adds_up_epoch_by_epoch() -> None:
    epochs, largest, weight = 100, 4.5, 0.0
    for epoch in range(epochs):
        assert largest * LAMBDA_SCHEDULES["ramp"](epoch / epochs) == pytest.approx(weight, rel=1e-12)
        if epoch < epochs - 10:
            weight += largest / (epochs - 10)


def test_late_is_what_gat_multiplies_by_four_after_epoch_86_of_100() -> None:
    weight = 10.0
    for epoch in range(100):
        assert 40.0 * LAMBDA_SCHEDULES["late"](epoch / 100) == weight
        if epoch == 85:
            weight *= 4


def test_the_penalty_counts_as_much_as_the_epoch_says_and_not_at_all_where_that_is_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits = data.load(DataSpec(dataset="digits", validation=100, train_examples=64))
    values = {"epochs": 4, "batch_size": 64, "lambda_schedule": "ramp", "lambda": 0.9, "regularizer": "gat"}
    values |= {"momentum": 0.0, "weight_decay": 0.0, "lr_schedule": "fixed", "lr_max": 0.01}
    run = Trainer(TrainingConfig.model_validate(values), splits, model=ModelConfig(name="small_cnn", width=4))
    monkeypatch.setattr(run.terms, "regularizer", Thousand(run.terms.regularizer))
    losses, penalties = [], []
    for _ in range(4):
        row = run.train_epoch()
        losses.append(row["train_loss"])
        penalties.append(row["curvature"])
    assert penalties == [None, 1000.0, 1000.0, 1000.0]
    for index in (1, 2, 3):
        share = min(1.0, index / 4 / 0.9)
        assert losses[index] == pytest.approx(0.9 * share * 1000, abs=5.0)
    assert losses[0] < 5


class Thousand:
    """A penalty of 1000 for each example, which trains nothing."""

    def __init__(self, like: object) -> None:
        self.points, self.takes_adversarial_forward, self.takes_clean_grad = ("clean",), False, False

    def __call__(self, step: PenaltyStep) -> torch.Tensor:
        return torch.full((len(step.images),), 1000.0) + 0 * step.logits["clean"].sum()


@pytest.mark.parametrize("epochs", [1, 2, 7, 8, 9, 10])
@pytest.mark.parametrize("name", LAMBDA_SCHEDULES)
def test_a_training_too_short_for_all_of_lambda_says_how_long_one_must_be(name: str, epochs: int) -> None:
    config = TrainingConfig.model_validate({"lambda_schedule": name, "epochs": epochs})
    most = max(LAMBDA_SCHEDULES[name](epoch / epochs) for epoch in range(epochs))
    needed = {"constant": 1, "ramp": 10, "late": 8}[name]
    assert (most < 1) == (epochs < needed)
    words = (
        f"lambda_schedule {name} reaches {most:.0%} in {format_count(epochs, 'epoch')}, and 100% in {needed} or more"
    )
    assert explain_short_training(config) == [words] * (most < 1)
    assert explain_short_training(config.model_copy(update={"lambda_": 0.0})) == []


def test_without_a_penalty_it_has_no_effect() -> None:
    for values in ({"lambda": 0.0}, {"regularizer": "none"}):
        assert "lambda_schedule" in inactive_hyperparameters(TrainingConfig.model_validate(values))
    assert "lambda_schedule" not in inactive_hyperparameters(TrainingConfig())
