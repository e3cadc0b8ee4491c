import pytest

from tune_cure.evaluation.catastrophic_overfitting import catastrophic_overfitting
from tune_cure.evaluation.standard_error import standard_error


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
    ("best", "now", "overfitted"),
    [
        (judged(0.5, 0.6), judged(0.25, 0.9), True),
        (judged(0.5, 0.6), judged(0.25, 0.3), False),  # all accuracies fell
        (judged(0.5, 0.6), judged(0.35, 0.9), False),
        (judged(0.18, 0.3, examples=500), judged(0.05, 0.6, examples=500), True),  # too low to fall by 0.2
        (judged(0.18, 0.3, examples=500), judged(0.10, 0.6, examples=500), False),
        (judged(0.18, 0.3, examples=30), judged(0.05, 0.6, examples=30), False),  # may be luck
        (judged(0.2, 0.3), judged(0.099, 0.3), False),  # below half by a tenth of a standard error
        (None, judged(0.0, 0.6), False),
    ],
)
def test_catastrophic_overfitting_is_a_collapse_of_pgd_without_a_fall_of_fgsm(
    best: dict[str, float] | None, now: dict[str, float], overfitted: bool
) -> None:
    assert catastrophic_overfitting(best, now) is overfitted


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
def test_misleading_gradients_with_a_low_pgd_accuracy_are_catastrophic_overfitting(
    now: dict[str, float], overfitted: bool
) -> None:
    assert catastrophic_overfitting(None, now) is overfitted
