import pytest
import torch
from scipy import stats

from tune_cure.evaluation.chance import chance_level, is_clearly_above


def test_the_chance_level_is_the_share_of_the_largest_class() -> None:
    assert chance_level(torch.tensor([0, 1, 2, 0, 1, 2])) == pytest.approx(1 / 3)
    assert chance_level(torch.tensor([0, 0, 0, 1])) == 0.75


@pytest.mark.parametrize("num_examples", [20, 60, 360])
@pytest.mark.parametrize("chance", [0.1, 1 / 3, 0.5])
def test_an_accuracy_is_clearly_above_chance_where_the_exact_binomial_test_says_so(
    num_examples: int, chance: float
) -> None:
    for correct in range(num_examples + 1):
        test = stats.binomtest(correct, num_examples, chance, alternative="greater")
        assert is_clearly_above(correct / num_examples, num_examples, chance) == (test.pvalue < 0.05)


def test_the_best_of_many_must_be_further_above_chance() -> None:
    assert is_clearly_above(0.45, 60, 1 / 3)
    assert not is_clearly_above(0.45, 60, 1 / 3, num_compared=20)
    assert is_clearly_above(0.65, 60, 1 / 3, num_compared=20)


def test_networks_that_guess_are_called_clearly_above_chance_at_most_once_in_twenty() -> None:
    random = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 30, 60, generator=random) < 1 / 3  # 2,000 searches of 30 guessing trials on 60 images
    best = draws.double().mean(dim=2).max(dim=1).values
    false = sum(is_clearly_above(float(accuracy), 60, 1 / 3, num_compared=30) for accuracy in best)
    assert false / 2000 <= 0.055
