from pathlib import Path

import numpy as np
import pytest

from tests.support.spaces import tiny
from tune_cure.search.schedulers.asha import Bracket, asha
from tune_cure.search.schedulers.hyperband import hyperband
from tune_cure.search.schedulers.registry import SCHEDULERS


def test_a_trial_gets_the_same_bracket_after_a_restart(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "asha.brackets=2", "training.epochs=8")
    brackets = []
    for _ in range(2):
        rule = asha(spec)
        for number in range(30):
            rule.add(number)
        brackets.append([rule.bracket_of[number] for number in range(30)])
    assert brackets[0] == brackets[1]
    assert set(brackets[0]) == {0, 1}


def test_a_trial_is_not_compared_at_an_earlier_rung_by_what_it_reached_later(tmp_path: Path) -> None:
    bracket = Bracket(tiny(tmp_path, "training.epochs=13", "asha.reduction_factor=3"))  # rungs after epochs 1, 3 and 9
    for number, score in enumerate((0.4, 0.3)):
        bracket.record(number, 1, score)
    bracket.record(2, 3, 0.5)  # it had no score at the first rung
    bracket.record(2, 3, 0.5)
    assert dict(bracket.rungs) == {9.0: {}, 3.0: {2: 0.5}, 1.0: {0: 0.4, 1: 0.3}}


def test_ashas_brackets_get_the_shares_that_are_expected_of_them(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "training.epochs=8", "asha.brackets=3")
    rule = asha(spec)
    for number in range(3000):
        rule.add(number)
    brackets = list(rule.bracket_of.values())
    assert [brackets.count(k) / 3000 for k in range(3)] == pytest.approx(spec.bracket_shares, abs=0.03)


def test_hyperband_shares_trials_out_to_brackets_as_the_paper_does(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=hyperband", "training.epochs=27", "asha.reduction_factor=3")
    assert spec.rungs == [1, 3, 9]
    weights = [27 / 4, 9 / 3, 3 / 2, 1]
    assert spec.bracket_shares == pytest.approx([weight / sum(weights) for weight in weights])
    rule = hyperband(spec)
    for number in range(4000):
        rule.add(number)
    brackets = [rule.bracket_of[number] for number in range(4000)]
    assert [brackets.count(k) / 4000 for k in range(4)] == pytest.approx(spec.bracket_shares, abs=0.02)
    first_rungs = [[milestone for milestone, _ in bracket.rungs][-1] for bracket in rule.brackets]
    assert first_rungs == [1, 3, 9, 27]  # the last begins where trials end anyway


@pytest.mark.parametrize(("scheduler", "override"), [("asha", "asha.brackets=2"), ("hyperband", "asha.grace_period=1")])
def test_drawing_brackets_leaves_numpys_global_generator_as_it_was(
    tmp_path: Path, scheduler: str, override: str
) -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002
    rule = SCHEDULERS[scheduler](tiny(tmp_path, f"search.scheduler={scheduler}", override))
    for number in range(10):
        rule.add(number)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index,union-attr]  # noqa: NPY002
