import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tune_cure.utils.significance import (
    Difference,
    holm,
    mean_and_deviation,
    measure_seed_spread,
    paired_difference,
    pooled_difference,
    simultaneous_differences,
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


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_image_tells_nothing_apart(seeds: int) -> None:
    found = paired_difference(np.ones((seeds, 1)), np.zeros((seeds, 1)))
    assert (found.estimate, found.low, found.high, found.p_value) == (1.0, -1.0, 1.0, 1.0)


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
    assert (found.estimate, found.p_value) == (0.0, 1.0)
    # All 500 images agree: the share of those that do not is below the bound of Clopper and Pearson for none of 500.
    most = stats.binomtest(0, 500).proportion_ci().high
    assert (found.low, found.high) == pytest.approx((-most, most))


def test_the_interval_of_a_pair_by_its_own_seeds_ends_where_differences_of_accuracies_do() -> None:
    best, last = np.full((2, 50), 0.5), np.repeat([[0.5], [0.0]], 50, axis=1)
    found = paired_difference(best, last)
    assert (found.estimate, found.low, found.high) == (0.25, -1.0, 1.0)
    assert verdict(found.estimate, found.p_value) == "cannot tell"


@pytest.mark.parametrize(("seeds", "sign"), [(1, 1), (1, -1), (3, 1)])
@pytest.mark.parametrize("images", [2, 5, 6, 100])
def test_images_that_all_say_the_same_are_as_certain_as_the_sign_test_says(seeds: int, sign: int, images: int) -> None:
    right, wrong = np.ones((seeds, images), dtype=bool), np.zeros((seeds, images), dtype=bool)
    pair = {"a": right, "b": wrong} if sign > 0 else {"a": wrong, "b": right}
    known = stats.binomtest(images, images)
    bound = 2 * known.proportion_ci(0.95).low - 1
    for found in (paired_difference(*pair.values()), pooled_difference(pair, measure_seed_spread(pair))):
        assert found.estimate == sign
        assert found.p_value == pytest.approx(known.pvalue)
        assert sorted((sign * found.low, sign * found.high)) == pytest.approx([bound, 1.0])
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0) == (images >= 6)


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


def test_a_test_that_stands_alone_is_neither_adjusted_nor_counted_by_holm() -> None:
    assert holm([0.03, 0.01, 0.02], alone=0) == pytest.approx([0.03, 0.02, 0.02])
    assert holm([0.01, 0.03], alone=1) == [0.01, 0.03]


def test_without_errors_an_unpaired_difference_is_certain() -> None:
    assert unpaired_difference(1.0, 0.0, 0.0, 0.0) == Difference(1.0, 1.0, 1.0, 0.0)
    assert unpaired_difference(1.0, 0.0, 1.0, 0.0).p_value == 1.0


def test_equal_accuracies_are_told_apart_as_often_as_the_level_says() -> None:
    accuracies = np.random.default_rng(0).binomial(1000, 0.5, (4000, 2)) / 1000
    errors = np.sqrt(accuracies * (1 - accuracies) / 1000)
    found = [unpaired_difference(a, e, b, f).p_value for (a, b), (e, f) in zip(accuracies, errors, strict=True)]
    assert 0.04 < np.mean(np.array(found) < 0.05) < 0.06


def many_outcomes(
    random: np.random.Generator,
    seeds: int,
    images: int,
    deviations: list[float],
    shifts: dict[int, float] | None = None,
) -> dict[str, np.ndarray]:
    """Configurations that are equal but for `shifts`; the accuracies of their seeds have these standard deviations."""
    common, found = random.normal(0, 0.8, images), {}
    for index, deviation in enumerate(deviations):
        own = random.normal(0, 0.4, images)
        luck = random.normal(0, deviation / 0.4, (seeds, 1))  # 0.4 is the slope of the normal distribution at 0
        latent = common + own + luck + random.normal(0, 0.45, (seeds, images))
        found[f"m{index}"] = latent + (shifts or {}).get(index, 0.0) / 0.4 > 0
    return found


@pytest.mark.parametrize(
    ("deviations", "at_most"), [([0.0] * 6, 0.05), ([0.02] * 6, 0.05), ([0.12] + [0.01] * 5, 0.09)]
)
def test_among_equal_configurations_a_false_difference_is_found_in_one_league_of_twenty_at_most(
    deviations: list[float], at_most: float
) -> None:
    random, wrong, num_leagues = np.random.default_rng(1), 0, 150
    for _ in range(num_leagues):
        found = many_outcomes(random, 3, 120, deviations)
        pairs = list(itertools.combinations(found, 2))
        differences = simultaneous_differences(found, pairs)
        wrong += min(holm([difference.p_value for difference in differences])) < 0.05
    assert wrong / num_leagues <= at_most + 2 * math.sqrt(at_most * (1 - at_most) / num_leagues)


def test_intervals_hold_together_also_where_configurations_differ() -> None:
    random, missed, num_leagues = np.random.default_rng(2), 0, 100
    for _ in range(num_leagues):
        found = many_outcomes(random, 3, 120, [0.02] * 4, shifts={0: 0.1})
        pairs = list(itertools.combinations(found, 2))
        true = {pair: 0.0 if "m0" not in pair else SHIFTED for pair in pairs}
        differences = simultaneous_differences(found, pairs)
        missed += any(
            not difference.low <= true[pair] <= difference.high
            for pair, difference in zip(pairs, differences, strict=True)
        )
    assert missed / num_leagues <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / num_leagues)


SHIFTED = float(stats.norm.cdf(0.25 / math.sqrt(0.8**2 + 0.4**2 + 0.45**2 + 0.05**2))) - 0.5
"""The difference that a shift of 0.1 in `many_outcomes` makes, with seeds that deviate by 0.02."""


def test_a_large_difference_is_found_with_certainty_beside_many_equal_configurations() -> None:
    found = many_outcomes(np.random.default_rng(3), 3, 300, [0.02] * 8, shifts={7: -0.3})
    pairs = list(itertools.combinations(found, 2))
    differences = simultaneous_differences(found, pairs)
    adjusted = dict(zip(pairs, holm([difference.p_value for difference in differences]), strict=True))
    for pair, difference in zip(pairs, differences, strict=True):
        assert (adjusted[pair] < 0.05) == ("m7" in pair)
        assert (difference.low > 0) == ("m7" in pair)


def test_equal_outcomes_cannot_be_told_apart_and_have_an_interval_around_zero() -> None:
    found = many_outcomes(np.random.default_rng(4), 3, 100, [0.02] * 3)
    (difference,) = simultaneous_differences({**found, "copy": found["m0"]}, [("m0", "copy")])
    assert (difference.estimate, difference.p_value) == (0.0, 1.0)
    assert difference.low < 0 < difference.high


def test_with_one_seed_each_a_pair_is_the_paired_t_test_over_images() -> None:
    found = many_outcomes(np.random.default_rng(5), 1, 200, [0.02] * 2)
    (difference,) = simultaneous_differences(found, [("m0", "m1")])
    known = paired_difference(found["m0"], found["m1"])
    assert (difference.low, difference.high, difference.p_value) == pytest.approx(
        (known.low, known.high, known.p_value)
    )


def test_where_images_do_not_matter_a_pair_is_the_t_test_with_the_pooled_variance_of_all_configurations() -> None:
    accuracies = {"a": [0.5, 0.52, 0.48], "b": [0.6, 0.61, 0.59], "c": [0.3, 0.33, 0.27]}
    found = {name: np.repeat([[value] for value in values], 50, axis=1) for name, values in accuracies.items()}
    variances = [0.02**2, 0.01**2, 0.03**2]
    spread = measure_seed_spread(found)
    assert list(spread.variances.values()) == pytest.approx(variances)
    assert (spread.pooled, spread.freedom, spread.unsteady) == (pytest.approx(sum(variances) / 3), 6, frozenset())
    (difference,) = simultaneous_differences(found, [("a", "b")])
    # a and b vary less than or about as all three together, so both count with the pooled variance.
    error = math.sqrt(2 * sum(variances) / 3 / 3)
    assert difference.p_value == pytest.approx(2 * stats.t.sf(0.1 / error, 6))
    assert difference.high - difference.estimate == pytest.approx(stats.t.ppf(0.975, 6) * error)


def test_a_configuration_whose_seeds_vary_far_more_goes_by_its_own_variance_and_widens_no_other_interval() -> None:
    steady = {f"s{index}": [0.5, 0.51, 0.49] for index in range(5)}
    accuracies = {**steady, "collapses": [0.5, 0.48, 0.0]}
    found = {name: np.repeat([[value] for value in values], 50, axis=1) for name, values in accuracies.items()}
    spread = measure_seed_spread(found)
    assert spread.unsteady == {"collapses"}
    assert (spread.pooled, spread.freedom) == (pytest.approx(0.01**2), 10)
    with_it, without = (
        simultaneous_differences(outcomes, [("s0", "s1")])[0]
        for outcomes in (found, {name: found[name] for name in steady})
    )
    assert with_it == without
    (difference,) = simultaneous_differences(found, [("s0", "collapses")])
    assert difference.p_value > 0.05


def test_a_configuration_with_one_seed_borrows_the_variance_of_the_others() -> None:
    found = {name: np.repeat([[0.5], [0.52], [0.48]], 50, axis=1) for name in ("a", "b")} | {"c": np.full((1, 50), 0.6)}
    (difference,) = simultaneous_differences(found, [("a", "c")])
    assert difference.p_value == pytest.approx(2 * stats.t.sf(0.1 / (0.02 * math.sqrt(1 / 3 + 1)), 4))


def test_intervals_from_very_few_seeds_end_where_differences_of_accuracies_do() -> None:
    found = {"a": np.repeat([[0.9], [0.2]], 50, axis=1), "b": np.full((1, 50), 0.5)}
    (difference,) = simultaneous_differences(found, [("a", "b")])
    assert (difference.low, difference.high) == (-1.0, 1.0)
    assert difference.p_value > 0.05


@pytest.mark.parametrize(("seeds", "by_own_seeds"), [(2, 0.3), (3, 0.1)])
def test_equal_candidates_of_a_confirmation_are_told_apart_by_the_seeds_of_each_pair_and_seldom_by_those_of_all(
    seeds: int, by_own_seeds: float
) -> None:
    random, num_confirmations = np.random.default_rng(6), 60
    told = {"own": 0, "pooled": 0}
    for _ in range(num_confirmations):
        found = many_outcomes(random, seeds, 120, [0.08] * 7)
        leaders, baselines = list(found)[:3], list(found)[3:]
        pairs = [*itertools.product(leaders, baselines), *((leaders[0], other) for other in leaders[1:])]
        spread = measure_seed_spread(found)
        own = [paired_difference(found[one], found[two]).p_value for one, two in pairs]
        pooled = [pooled_difference({name: found[name] for name in pair}, spread).p_value for pair in pairs]
        told["own"] += min(holm(own)) < 0.05
        told["pooled"] += min(holm(pooled)) < 0.05
    assert told["own"] / num_confirmations > by_own_seeds
    assert told["pooled"] / num_confirmations <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / num_confirmations)


@pytest.mark.parametrize("deviation", [0.0, 0.02, 0.08])
def test_equal_configurations_of_a_single_pair_with_two_seeds_are_told_apart_once_in_twenty_at_most(
    deviation: float,
) -> None:
    random, num_pairs, told = np.random.default_rng(7), 800, 0
    for _ in range(num_pairs):
        found = many_outcomes(random, 2, 120, [deviation] * 2)
        told += pooled_difference(found, measure_seed_spread(found)).p_value < 0.05
    assert told / num_pairs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / num_pairs)


def test_two_seeds_find_a_difference_that_is_much_larger_than_what_seeds_and_images_make() -> None:
    random = np.random.default_rng(8)
    for _ in range(20):
        found = many_outcomes(random, 2, 300, [0.01] * 2, shifts={0: 0.3})
        difference = pooled_difference(found, measure_seed_spread(found))
        assert verdict(difference.estimate, difference.p_value) == "better"


def test_seeds_that_agree_by_chance_count_as_much_as_the_luck_of_single_images() -> None:
    images = 400
    found = {name: np.zeros((2, images), dtype=bool) for name in ("a", "b")}
    for name, shift in (("a", 0), ("b", 30)):  # both seeds have the same accuracy, on other images
        found[name][0, shift : shift + 200] = found[name][1, shift + 100 : shift + 300] = True
    spread = measure_seed_spread(found)
    assert spread.pooled == 0
    difference = pooled_difference(found, spread)
    # What is left is the error of an image's mean over the seeds, which the paired t-test over images measures.
    by_image = found["a"].mean(axis=0) - found["b"].mean(axis=0)
    interval = stats.t.ppf(0.975, images - 1) * by_image.std(ddof=1) / math.sqrt(images)
    assert difference.high - difference.estimate >= interval > 0


def test_a_configuration_is_not_unsteady_because_two_seeds_of_the_other_have_as_many_right_images_by_chance() -> None:
    tied = np.array([[1, 1, 1, 0, 0, 0, 1, 0, 1, 0], [0, 0, 1, 1, 1, 0, 0, 1, 1, 0]], dtype=bool)
    other = np.array([[1, 0, 1, 0, 1, 0, 1, 0, 1, 0], [1, 1, 0, 1, 1, 0, 0, 1, 1, 0]], dtype=bool)
    spread = measure_seed_spread({"tied": tied, "other": other})
    assert spread.variances["tied"] == 0 < spread.variances["other"]
    assert spread.unsteady == frozenset()


@pytest.mark.parametrize(("seeds", "images"), [(2, 30), (2, 100), (3, 30)])
def test_seeds_without_an_effect_seldom_make_a_configuration_unsteady(seeds: int, images: int) -> None:
    random, unsteady, repeats = np.random.default_rng(9), 0, 200
    for _ in range(repeats):
        unsteady += bool(measure_seed_spread(many_outcomes(random, seeds, images, [0.0] * 2)).unsteady)
    assert unsteady / repeats <= 0.05


def test_networks_that_are_never_right_do_not_make_the_seeds_of_others_look_steady() -> None:
    accuracies = {"a": [0.5, 0.54, 0.46], "b": [0.5, 0.47, 0.53]}
    found = {name: np.repeat([[value] for value in values], 50, axis=1) for name, values in accuracies.items()}
    collapsed = {f"collapsed{number}": np.zeros((3, 50)) for number in range(4)} | {"perfect": np.ones((3, 50))}
    alone, beside = measure_seed_spread(found), measure_seed_spread({**found, **collapsed})
    assert (beside.pooled, beside.freedom, beside.unsteady) == (alone.pooled, alone.freedom, frozenset())
    assert pooled_difference(found, beside) == pooled_difference(found, alone)
    against = {"a": found["a"], "collapsed0": collapsed["collapsed0"]}
    assert pooled_difference(against, beside).p_value == pytest.approx(
        2 * stats.t.sf(0.5 / math.sqrt((0.04**2 + alone.pooled) / 3), 4)
    )


def right_on(share: float, seeds: int, images: int) -> NDArray[np.bool_]:
    """Outcomes of a network that is right on the given share of images, with each seed on others."""
    found = np.zeros((seeds, images), dtype=bool)
    for seed in range(seeds):
        found[seed, seed : seed + round(share * images)] = True
    return found


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99])
def test_networks_that_are_hardly_ever_right_or_wrong_do_not_make_the_seeds_of_others_look_steady(share: float) -> None:
    random = np.random.default_rng(10)
    found = many_outcomes(random, 3, 100, [0.05] * 2)
    confined = {f"confined{number}": right_on(share, 3, 100) for number in range(4)}
    alone, beside = measure_seed_spread(found), measure_seed_spread({**found, **confined})
    assert (beside.pooled, beside.freedom, beside.unsteady) == (alone.pooled, alone.freedom, frozenset())
    assert pooled_difference(found, beside) == pooled_difference(found, alone)


def test_accuracies_that_are_all_near_one_speak_for_each_other() -> None:
    found = {"a": right_on(0.98, 3, 100), "b": right_on(0.98, 3, 100)}
    found["a"][0, :12], found["b"][0, :10] = False, False
    spread = measure_seed_spread(found)
    assert spread.freedom == 4 and spread.pooled == pytest.approx(sum(spread.variances.values()) / 2)


def test_a_network_that_is_right_with_one_seed_of_many_alone_is_unsteady() -> None:
    found = many_outcomes(np.random.default_rng(11), 6, 200, [0.01] * 4)
    found["lucky"] = np.zeros((6, 200), dtype=bool)
    found["lucky"][0, :40] = True  # 3.3% on the average: too little to speak for the others
    assert measure_seed_spread(found).unsteady == {"lucky"}


def test_a_fixed_network_brings_no_variance_of_seeds() -> None:
    leader = np.repeat([[0.5], [0.52], [0.48]], 50, axis=1)
    difference = pooled_difference({"a": leader, "fixed": np.full((1, 50), 0.4)}, measure_seed_spread({"a": leader}))
    assert difference.p_value == pytest.approx(stats.ttest_1samp([0.5, 0.52, 0.48], 0.4).pvalue)
    assert difference.estimate == pytest.approx(0.1)


def test_an_unsteady_configuration_with_one_seed_of_the_pair_goes_by_the_freedom_of_all_its_seeds() -> None:
    accuracies = {f"s{index}": [0.5, 0.51, 0.49] for index in range(5)} | {"collapses": [0.5, 0.48, 0.0]}
    found = {name: np.repeat([[value] for value in values], 50, axis=1) for name, values in accuracies.items()}
    first_seed = {name: found[name][:1] for name in ("s0", "collapses")}
    difference = pooled_difference(first_seed, measure_seed_spread(found))
    assert difference.estimate == 0
    assert (difference.low, difference.high) == (-1.0, 1.0)
