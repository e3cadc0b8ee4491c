import numpy as np
import pytest

from tune_cure.confirmation.seed_words import describe_interval, describe_own_intervals, warn_of_few_seeds
from tune_cure.utils.significance import SeedSpread, measure_seed_spread


def spread(*seeds: int) -> SeedSpread:
    """How much candidates with these numbers of seeds vary, each right on about half of 40 images."""
    random = np.random.default_rng(0)
    return measure_seed_spread({f"c{index}": random.random((number, 40)) < 0.5 for index, number in enumerate(seeds)})


def test_a_pair_with_one_seed_goes_by_the_seeds_of_other_candidates_that_have_more() -> None:
    assert describe_interval(spread(1, 1)) == "is for the images alone"
    assert describe_interval(spread(1, 3)) == "includes the chance of the seeds and that of the images"
    (warning,) = warn_of_few_seeds([1, 1], spread(1, 1))
    assert warning == "With one seed, the intervals do not include how much seeds differ."
    assert warn_of_few_seeds([1, 3], spread(1, 3)) == []
    (warning,) = warn_of_few_seeds([1, 2], spread(1, 2))
    assert warning.startswith("With two seeds, ")


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([1, 1], "is for the images alone"),
        ([2, 3], "includes the chance of the seeds and that of the images"),
        (
            [1, 3],
            "includes the chance of the seeds and that of the images; that of a candidate with one run is for the "
            "images alone",
        ),
    ],
)
def test_an_interval_by_a_candidates_own_seeds_is_described_by_their_number(seeds: list[int], words: str) -> None:
    assert describe_own_intervals(seeds) == words
