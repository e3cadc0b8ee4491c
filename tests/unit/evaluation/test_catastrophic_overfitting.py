import pytest

from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.catastrophic_overfitting import catastrophic_overfitting
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import standard_error
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer


def judged(
    pgd: float, fgsm_accuracy: float, *, examples: int = 1000, increase: float = 0.5, alignment: float = 0.8
) -> dict[str, float]:
    """What `evaluate` would say of a network with these accuracies."""
    return {
        "pgd_accuracy": pgd,
        "pgd_accuracy_se": standard_error(pgd, examples),
        "fgsm_accuracy": fgsm_accuracy,
        "fgsm_accuracy_se": standard_error(fgsm_accuracy, examples),
        "fgsm_loss_increase": increase,
        "gradient_alignment": alignment,
    }


@pytest.mark.parametrize(
    ("before", "now", "overfitted"),
    [
        (judged(0.5, 0.6), judged(0.25, 0.9), True),
        (judged(0.5, 0.6), judged(0.25, 0.3), False),  # all accuracies fell
        (judged(0.5, 0.6), judged(0.35, 0.9), False),
        (judged(0.18, 0.3, examples=500), judged(0.05, 0.6, examples=500), True),  # too low to fall by 0.2
        (judged(0.18, 0.3, examples=500), judged(0.10, 0.6, examples=500), False),
        (judged(0.18, 0.3, examples=30), judged(0.05, 0.6, examples=30), False),  # may be luck
        (None, judged(0.0, 0.6), False),
    ],
)
def test_catastrophic_overfitting_is_a_collapse_of_pgd_without_a_fall_of_fgsm(
    before: dict[str, float] | None, now: dict[str, float], overfitted: bool
) -> None:
    assert catastrophic_overfitting(before, now) is overfitted


@pytest.mark.parametrize(
    ("now", "overfitted"),
    [
        (judged(0.0, 0.6), False),
        (judged(0.0, 0.6, increase=-0.1), True),
        (judged(0.0, 0.6, alignment=0.2), True),
        (judged(0.35, 0.6, increase=-0.1), False),
        (judged(0.1, 0.3, examples=20, increase=-0.1), False),  # may be luck
    ],
)
def test_it_is_also_a_network_that_many_steps_break_and_whose_gradients_mislead(
    now: dict[str, float], overfitted: bool
) -> None:
    assert catastrophic_overfitting(None, now) is overfitted


@pytest.mark.slow
def test_catastrophic_overfitting_made_to_happen_is_seen_in_the_epoch_that_it_happens_in() -> None:
    """FGSM from the image itself with a large epsilon: soon single steps break nothing, and PGD breaks all."""
    run = Trainer(
        TrainingConfig.model_validate(
            {"epochs": 16, "batch_size": 64, "epsilon": 0.25, "alpha": 1.0, "init": "zero", "lambda": 0}
            | {"lr_schedule": "cyclic", "lr_max": 0.05}
        ),
        splits.load(DataSpec(dataset="digits", validation=300, image_size=16)),
        model=ModelConfig(name="preact_resnet10", width=16),
        evaluation=EvaluationConfig(epsilon=0.25, examples=300),
    )
    for _ in range(16):
        run.train_epoch()
        metrics = run.evaluate()
        has_happened = metrics["fgsm_accuracy"] > 0.6 and metrics["pgd_accuracy"] < 0.05
        if has_happened or metrics["catastrophic_overfitting"]:
            break
    assert metrics["catastrophic_overfitting"]
    assert metrics["pgd_accuracy"] < metrics["fgsm_accuracy"] / 2
