from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.spaces import tiny
from tune_cure.search import importance
from tune_cure.search.space.config import SearchSpec

SPACE = "space={lambda: {loguniform: [0.01, 100]}, h: {uniform: [1, 2]}, lr_max: {uniform: [0.1, 0.2]}}"


@pytest.fixture
def spec(tmp_path: Path) -> SearchSpec:
    return tiny(tmp_path, SPACE, "training={}", "start_from=[]")


def drawn(number: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    at = random.random((number, 3))
    return pd.DataFrame({"lambda": 10 ** (4 * at[:, 0] - 2), "h": 1 + at[:, 1], "lr_max": 0.1 + 0.1 * at[:, 2]})


def test_the_shares_of_an_additive_function_are_those_of_its_terms_variances(spec: SearchSpec) -> None:
    trials = drawn(200)
    # Along each axis uniform, so 2 times as steep is 4 times the variance: 0.8 and 0.2 of it.
    values = 2 * (np.log10(trials["lambda"]) + 2) / 4 + trials["h"]
    shares = importance.fanova(trials, values, spec)
    assert list(shares) == ["lambda", "h", "lr_max"]
    assert shares["lambda"] == pytest.approx(0.8, abs=0.05)
    assert shares["h"] == pytest.approx(0.2, abs=0.05)
    assert shares["lr_max"] < 0.02


def test_too_few_trials_or_equal_values_rate_nothing(spec: SearchSpec) -> None:
    assert importance.fanova(drawn(7), pd.Series(np.arange(7.0)), spec) == {}
    assert importance.fanova(drawn(20), pd.Series([0.5] * 20), spec) == {}
    assert importance.fanova(drawn(20), pd.Series([np.nan] * 20), spec) == {}


def test_one_configuration_in_all_trials_rates_nothing(spec: SearchSpec) -> None:
    trials = pd.concat([drawn(1)] * 20, ignore_index=True)
    assert importance.fanova(trials, pd.Series(np.arange(20.0)), spec) == {}


def test_what_makes_no_difference_in_some_trials_is_not_rated_and_values_outside_of_the_space_not_used(
    spec: SearchSpec,
) -> None:
    trials = drawn(20)
    values = trials["h"].copy()
    trials["lr_max"] = trials["lr_max"].astype(object)
    trials.loc[3, "lr_max"] = None
    trials.loc[0, "h"] = 50.0
    values[0] = 1e6
    shares = importance.fanova(trials, values, spec)
    assert list(shares) == ["h", "lambda"]
    assert shares["h"] > 0.7


def test_many_trials_are_thinned_evenly(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MAX_TRIALS", 10)
    trials = drawn(40)
    thinned = importance.fanova(trials, trials["h"], spec)
    assert thinned == importance.fanova(trials.iloc[::4], trials["h"].iloc[::4], spec)
