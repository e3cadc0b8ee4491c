import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.leagues import build_confirmation, draw_outcomes, finish_league, write_league
from tune_cure.confirmation.candidates import CandidateError
from tune_cure.confirmation.saved import read_confirmation
from tune_cure.evaluation.names import WITHOUT_AUTOATTACK
from tune_cure.league.conclusions import what_cannot_be_said, who_wins
from tune_cure.league.contenders import choose_contenders
from tune_cure.league.standings import COLUMNS, PAIR_COLUMNS, Standings, find_cliques


def stand(accuracies: dict[str, float], **options: object) -> Standings:
    return Standings(list(accuracies), build_confirmation(draw_outcomes(accuracies, **options)), {})  # type: ignore[arg-type]


def test_a_handicapped_method_is_last_with_certainty_and_equal_ones_cannot_be_told_apart() -> None:
    standings = stand({"a": 0.5, "handicapped": 0.3, "b": 0.5, "c": 0.5})
    assert standings.order[-1] == "handicapped"
    told = standings.pairs[standings.pairs["verdict"].eq("better")]
    assert {*told["second"]} == {"handicapped"} and len(told) == 3
    assert (told["low"] > 0).all() and (told["p_value_holm"] < 0.001).all()
    assert {*standings.leading} == {"a", "b", "c"}
    assert {name: standings.groups[name] for name in standings.order} == {
        **dict.fromkeys(standings.leading, "a"), "handicapped": "b"
    }  # fmt: skip


def test_two_copies_of_one_method_cannot_be_told_apart() -> None:
    copies = draw_outcomes({"cure": 0.5, "other": 0.42})
    standings = Standings(["cure", "cure2", "other"], build_confirmation({**copies, "cure2": copies["cure"]}), {})
    row = standings.pairs.iloc[0]
    assert (row["first"], row["second"], row["verdict"]) == ("cure", "cure2", "cannot tell")
    assert row["difference"] == 0
    assert row["low"] < 0 < row["high"]
    assert standings.groups["cure"] == standings.groups["cure2"]


@pytest.mark.parametrize("deviation", [0.0, 0.03])
def test_in_a_league_of_equal_methods_somebody_is_told_apart_in_one_of_twenty_at_most(deviation: float) -> None:
    num_leagues, names = 80, dict.fromkeys("abcdef", 0.5)
    wrong = sum(
        bool(stand(names, images=100, deviation=deviation, seed=seed).pairs["verdict"].ne("cannot tell").any())
        for seed in range(num_leagues)
    )
    assert wrong / num_leagues <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / num_leagues)


def test_groups_are_the_largest_sets_of_methods_that_cannot_be_told_apart() -> None:
    neighbors = {"a": {"b"}, "b": {"a", "c"}, "c": {"b"}, "d": set()}
    assert sorted(map(sorted, find_cliques(neighbors))) == [["a", "b"], ["b", "c"], ["d"]]


def test_a_method_between_two_that_differ_is_in_the_groups_of_both() -> None:
    accuracies = {"high": 0.54, "middle": 0.5, "low": 0.46}
    standings = stand(accuracies, images=400, seeds=5, deviation=0.015, seed=1)
    assert standings.pairs["verdict"].tolist() == ["cannot tell", "better", "cannot tell"]
    assert standings.pairs[["first", "second"]].iloc[1].tolist() == ["high", "low"]
    assert standings.groups == {"high": "a", "middle": "ab", "low": "b"}
    assert standings.leading == ["high", "middle"]


def test_methods_are_ranked_by_the_strongest_attack_that_judged_all_winners() -> None:
    confirmation = build_confirmation(draw_outcomes({"a": 0.5, "b": 0.4}))
    assert Standings(["a", "b"], confirmation, {}).attack == "autoattack"
    of_one = confirmation.table["contender"].eq("b") & confirmation.table["seed"].eq(3)
    confirmation.table.loc[of_one, "autoattack"] = np.nan
    assert Standings(["a", "b"], confirmation, {}).attack == "pgd_50_10"


def test_a_method_whose_pgd_is_far_above_autoattack_is_flagged() -> None:
    confirmation = build_confirmation(draw_outcomes({"a": 0.5, "masked": 0.4}))
    for (name, _, _), arrays in confirmation.outcomes.items():
        if name == "masked":
            wrong = np.flatnonzero(~arrays["autoattack"])[:60]
            for attack in WITHOUT_AUTOATTACK:
                arrays[attack] = arrays[attack].copy()
                arrays[attack][wrong] = True
    flags = Standings(["a", "masked"], confirmation, {}).flags
    assert list(flags) == ["masked"]
    assert flags["masked"][0].startswith("PGD-50-10 accuracy is up to 20.0 points above AutoAttack's: ")


def test_tuned_minus_untuned_is_told_for_each_method_and_adjusted_for_all_of_them() -> None:
    drawn = draw_outcomes({"a": 0.55, "b": 0.5, "a0": 0.35, "b0": 0.5})
    confirmation = build_confirmation({"a": drawn["a"], "b": drawn["b"]}, {"a": drawn["a0"], "b": drawn["b0"]})
    tuning = Standings(["a", "b"], confirmation, {}).tuning.set_index("first")
    assert tuning["verdict"].to_dict() == {"a": "better", "b": "cannot tell"}
    assert tuning.loc["a", "difference"] == pytest.approx(drawn["a"].mean() - drawn["a0"].mean())
    assert tuning.loc["a", "p_value_holm"] == pytest.approx(2 * tuning.loc["a", "p_value"])


def test_the_pareto_front_has_what_nothing_is_quicker_and_more_robust_than() -> None:
    confirmation = build_confirmation(draw_outcomes({"quick": 0.4, "slow": 0.55, "beaten": 0.3}))
    for name, seconds in {"quick": 5.0, "slow": 50.0, "beaten": 6.0}.items():
        confirmation.table.loc[confirmation.table["contender"].eq(name), "train_seconds"] = seconds
    costs = Standings(["quick", "slow", "beaten"], confirmation, {}).costs.set_index("method")
    assert costs["front"].to_dict() == {"slow": True, "quick": True, "beaten": False}


def test_a_run_that_diverged_early_is_not_quick() -> None:
    confirmation = build_confirmation(draw_outcomes({"diverges": 0.5, "whole": 0.45}))
    is_first = confirmation.table["contender"].eq("diverges") & confirmation.table["seed"].eq(1)
    confirmation.table.loc[is_first, ["train_seconds", "diverged"]] = [0.5, True]
    costs = Standings(["diverges", "whole"], confirmation, {}).costs.set_index("method")
    assert costs["train_seconds"].to_dict() == {"diverges": 10.0, "whole": 10.0}


def test_runs_that_overfitted_catastrophically_or_diverged_are_counted() -> None:
    confirmation = build_confirmation(draw_outcomes({"a": 0.5, "b": 0.5}))
    of_a = confirmation.table.index[confirmation.table["contender"].eq("a")]
    confirmation.table.loc[of_a[0], "catastrophic_overfitting_epoch"] = 3
    confirmation.table.loc[of_a[1], "diverged"] = True
    standings = Standings(["a", "b"], confirmation, {})
    assert (standings.collapses("a"), standings.collapses("b")) == (2, 0)


def test_a_league_leaves_a_row_for_each_method_and_seed(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"})
    finish_league(league, {"cure": 0.5, "fgsm": 0.35})
    confirmation = read_confirmation(tmp_path)
    assert confirmation is not None
    standings = Standings(league.methods, confirmation, league.results())
    table = standings.table
    assert table.columns.tolist() == list(COLUMNS)
    assert table[["method", "seed", "rank"]].to_numpy().tolist() == [
        *([["cure", seed, 1] for seed in (1, 2, 3)]), *([["fgsm", seed, 2] for seed in (1, 2, 3)])
    ]  # fmt: skip
    assert table[["preset_autoattack", "best_autoattack", "search_seconds", "hyperparameters"]].notna().all(axis=None)
    assert table["robust_overfitting"].tolist() == pytest.approx([1 / 300] * 6)
    described = Path("docs/columns.md").read_text()
    assert all(f"`{name}`" in described or f" {name}" in described for name in (*COLUMNS, *PAIR_COLUMNS))
    searches = standings.searches.set_index("method")
    assert searches["trials"].tolist() == [len(result.trials) for result in league.results().values()]
    assert (searches["lowest"] <= searches["median"]).all() and (searches["median"] <= searches["highest"]).all()


def test_winners_and_untuned_presets_take_part_and_a_preset_that_won_is_trained_once(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"})
    contenders = choose_contenders(league)
    assert [(it.name, it.kind) for it in contenders] == [
        ("cure", "winner"), ("cure-preset", "preset"), ("fgsm", "winner"), ("fgsm-preset", "preset")
    ]  # fmt: skip
    result = league.results()["cure"]
    assert result.best is not None
    assert contenders[0].config == result.spec.training_config(result.best.hyperparameters)
    assert contenders[1].config == result.spec.training_config(result.spec.start_from[0])


def test_a_preset_that_won_its_search_is_trained_once_and_tuning_was_worth_nothing(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, falling=("fgsm",))
    assert [it.name for it in choose_contenders(league)] == ["cure", "cure-preset", "fgsm"]
    standings = Standings(league.methods, finish_league(league, {"cure": 0.5, "fgsm": 0.35}), league.results())
    assert standings.preset("fgsm") == "fgsm"
    row = standings.tuning.set_index("first").loc["fgsm"]
    assert (row["difference"], row["verdict"]) == (0.0, "the preset won")
    own = standings.table[standings.table["method"].eq("fgsm")]
    assert own["preset_autoattack"].tolist() == own["autoattack"].tolist()


def test_a_method_whose_trials_all_failed_has_no_place_and_keeps_nobody_from_winning(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"broken": "pgd", "cure": "cure", "fgsm": "fgsm_rs"}, failing=["broken"])
    assert [it.name for it in choose_contenders(league)] == ["cure", "cure-preset", "fgsm", "fgsm-preset"]
    standings = Standings(league.methods, finish_league(league, {"cure": 0.6, "fgsm": 0.35}), league.results())
    assert (standings.order, standings.unjudged, standings.awaited) == (["cure", "fgsm"], ["broken"], [])
    assert who_wins(standings)[0].startswith("cure wins: ")
    limits = what_cannot_be_said(standings, league.config)
    assert "broken has no place: no trial of its search has come to a sound end." in limits


def test_a_league_whose_trials_all_failed_has_nothing_to_confirm(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, failing=["cure", "fgsm"])
    with pytest.raises(CandidateError, match="the trials of all methods failed: there is nothing to confirm"):
        choose_contenders(league)


def test_before_a_winner_is_judged_there_is_no_order(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"})
    confirmation = finish_league(league, {})
    confirmation.table = confirmation.table[confirmation.table["kind"].eq("preset")]
    standings = Standings(league.methods, confirmation, league.results())
    assert (standings.order, standings.unjudged) == ([], ["cure", "fgsm"])
    assert standings.table.empty and standings.pairs.empty and standings.tuning.empty and standings.groups == {}
