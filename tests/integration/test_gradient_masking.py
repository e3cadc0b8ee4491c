import pytest
import torch
from torch import nn

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Examples
from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.robustness import evaluate_robustness
from tune_cure.training.config import ModelConfig, TrainingConfig, parse_training
from tune_cure.training.presets import expand_method
from tune_cure.training.trainer import Trainer

EVALUATION = EvaluationConfig(epsilon=0.1)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Examples]:
    """A small network that was trained adversarially, and images to attack."""
    splits = data.load(DataSpec(dataset="digits", validation=360))
    config = TrainingConfig.model_validate(
        {"epochs": 8, "batch_size": 64, "epsilon": 0.12, "lr_max": 0.1, "lambda": 0.01, "h": 1.0}
    )
    trainer = Trainer(config, splits, model=ModelConfig(name="small_cnn"), seed=1)
    for _ in range(config.epochs):
        trainer.train_epoch()
    return trainer.model, splits.test.subset(60, seed=0)


def test_no_sign_of_masked_gradients_is_found_in_an_adversarially_trained_network(
    trained: tuple[nn.Module, Examples],
) -> None:
    found = evaluate_robustness(*trained, EVALUATION)
    assert found.correct["clean"].mean() > 0.8
    assert found.correct["autoattack"].mean() > 0.2
    assert gradient_masking.find_masking_signs(found) == []


class Saturated(nn.Module):
    """The same classes as the network's, with logits so large that the loss is exactly 0 and has no gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 1e4 * self.network(images)


def test_masked_gradients_are_found_in_a_network_that_hides_them(trained: tuple[nn.Module, Examples]) -> None:
    network, examples = trained
    sound, masked = (
        evaluate_robustness(network, examples, EVALUATION),
        evaluate_robustness(Saturated(network), examples, EVALUATION),
    )
    assert masked.correct["pgd_50_10"].mean() > sound.correct["pgd_50_10"].mean() + 0.1  # it looks more robust
    signs = " ".join(map(str, gradient_masking.find_masking_signs(masked)))
    assert "The gradient is exactly zero" in signs
    assert "believe AutoAttack" in signs


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"method": "ssat", "epsilon": 0.2, "epochs": 12},
        {"method": "zerograd", "epsilon": 0.25, "epochs": 20, "init": "zero"},
    ],
    ids=["ssat", "zerograd at a large radius"],
)
def test_a_network_of_a_method_that_masks_gradients_is_caught(hyperparameters: dict[str, object]) -> None:
    splits = data.load(DataSpec(dataset="digits", validation=360))
    recipe = {"batch_size": 64, "lr_max": 0.2, "lr_schedule": "cyclic"}
    config = parse_training(expand_method({**recipe, **hyperparameters}))
    trainer = Trainer(config, splits, model=ModelConfig(name="small_cnn", width=12))
    for _ in range(config.epochs):
        trainer.train_epoch()
    judged = EvaluationConfig(epsilon=config.epsilon)
    found = evaluate_robustness(trainer.model, splits.test, judged, autoattack=False)
    signs = " ".join(map(str, gradient_masking.find_masking_signs(found)))
    assert "points above PGD-50-10's" in signs  # 10.0 and 14.2, where 2 are allowed; FGSM is 24.8 and 21.2 above PGD-10
