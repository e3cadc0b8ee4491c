import math

import numpy as np
import pytest
from scipy import stats

from tune_cure.utils.significance import (
    Difference,
    holm,
    mean_and_deviation,
    paired_difference,
    unpaired_difference,
    verdict,
)


def outcomes(
    random: np.random.Generator, seeds: int, images: int, *, shift: float = 0.0, of_seeds: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Two configurations: images differ in difficulty for both alike and for each, seeds in luck for each."""
    common = random.normal(0, 1.5, images)
    own = [random.normal(0, 0.7, images) for _ in range(2)]
    found = []
    for index in range(2):
        luck = random.normal(0, of_seeds / 0.25, (seeds, 1))  # a quarter is about the slope of the logistic function
        chance = 1 / (1 + np.exp(-(common + own[index] + luck + (shift / 0.2 if index == 0 else 0.0))))
        found.append(random.random((seeds, images)) < chance)
    return found[0], found[1]


def test_a_mean_comes_with_the_sample_standard_deviation_which_one_value_has_not() -> None:
    assert mean_and_deviation(np.array([1.0, 2.0, 6.0])) == (3.0, pytest.approx(math.sqrt(7)))
    mean, deviation = mean_and_deviation(np.array([0.4]))
    assert mean == 0.4
    assert math.isnan(deviation)


def test_with_one_seed_it_is_the_paired_t_test_over_images() -> None:
    first, second = outcomes(np.random.default_rng(0), 1, 200)
    found = paired_difference(first, second)
    known = stats.ttest_rel(first[0].astype(float), second[0].astype(float))
    interval = known.confidence_interval(0.95)
    assert found.estimate == pytest.approx(first.mean() - second.mean())
    assert found.p_value == pytest.approx(known.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_where_all_images_agree_it_is_the_paired_t_test_over_seeds() -> None:
    first = np.repeat([[0.9], [0.8], [0.7], [0.95]], 50, axis=1)
    second = np.repeat([[0.85], [0.7], [0.72], [0.8]], 50, axis=1)
    found = paired_difference(first, second)
    known = stats.ttest_rel(first[:, 0], second[:, 0])
    interval = known.confidence_interval(0.95)
    assert found.p_value == pytest.approx(known.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_the_variance_of_the_mean_is_that_of_the_crossed_random_effects() -> None:
    random = np.random.default_rng(0)
    repetitions, seeds, images = 3000, 3, 40
    sigmas = {"seed": 0.3, "image": 0.5, "rest": 0.8}
    layout = (
        sigmas["seed"] * random.normal(size=(repetitions, seeds, 1))
        + sigmas["image"] * random.normal(size=(repetitions, 1, images))
        + sigmas["rest"] * random.normal(size=(repetitions, seeds, images))
    )
    true = sigmas["seed"] ** 2 / seeds + sigmas["image"] ** 2 / images + sigmas["rest"] ** 2 / (seeds * images)
    assert layout.mean(axis=(1, 2)).var() == pytest.approx(true, rel=0.06)
    covered = sum(found.low <= 0 <= found.high for of in layout if (found := paired_difference(of, np.zeros_like(of))))
    assert 0.93 <= covered / repetitions <= 0.99


def test_identical_configurations_cannot_be_told_apart() -> None:
    first, _ = outcomes(np.random.default_rng(1), 3, 500)
    found = paired_difference(first, first)
    assert (found.estimate, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert verdict(found.estimate, found.p_value) == "cannot tell"


def test_configurations_that_differ_by_luck_alone_are_seldom_told_apart() -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(400):
        # Both have the same chance at every image: what differs is the luck of the seeds and of the images.
        chance = 1 / (1 + np.exp(-random.normal(0, 1.5, 500)))
        luck = random.normal(0, 0.02, (2, 3, 1))
        first, second = random.random((2, 3, 500)) < np.clip(chance + luck, 0, 1)
        found.append(paired_difference(first, second).p_value)
    assert np.mean(np.array(found) < 0.05) < 0.08


@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.09, 0.14), (3, 0.055, 0.09), (5, 0.035, 0.07)])
def test_how_often_verdicts_err_where_seeds_differ_much_is_as_documented(seeds: int, least: float, most: float) -> None:
    random, found = np.random.default_rng(0), []
    for _ in range(1500):
        chance = 1 / (1 + np.exp(-random.normal(0, 1.5, 300)))
        luck = random.normal(0, 0.04, (2, seeds, 1))
        first, second = random.random((2, seeds, 300)) < np.clip(chance + luck, 0, 1)
        found.append(paired_difference(first, second).p_value)
    assert least < np.mean(np.array(found) < 0.05) < most


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        found = paired_difference(*outcomes(random, 3, 500, shift=0.2, of_seeds=0.005))
        assert verdict(found.estimate, found.p_value) == "better"
        assert verdict(-found.estimate, found.p_value) == "worse"


def test_more_seeds_that_disagree_make_the_interval_wider_than_one_alone() -> None:
    random = np.random.default_rng(4)
    chance = np.array([[0.5], [0.6], [0.7]])
    first = random.random((3, 1000)) < chance
    second = random.random((3, 1000)) < 0.5
    all_seeds, one = paired_difference(first, second), paired_difference(first[2:], second[2:])
    assert all_seeds.high - all_seeds.low > one.high - one.low


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_without_errors_an_unpaired_difference_is_certain() -> None:
    assert unpaired_difference(1.0, 0.0, 0.0, 0.0) == Difference(1.0, 1.0, 1.0, 0.0)
    assert unpaired_difference(1.0, 0.0, 1.0, 0.0).p_value == 1.0


def test_equal_accuracies_are_told_apart_as_often_as_the_level_says() -> None:
    accuracies = np.random.default_rng(0).binomial(1000, 0.5, (4000, 2)) / 1000
    errors = np.sqrt(accuracies * (1 - accuracies) / 1000)
    found = [unpaired_difference(a, e, b, f).p_value for (a, b), (e, f) in zip(accuracies, errors, strict=True)]
    assert 0.04 < np.mean(np.array(found) < 0.05) < 0.06
