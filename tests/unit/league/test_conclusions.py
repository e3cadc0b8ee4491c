from pathlib import Path

import numpy as np
import pytest

from tests.support.leagues import build_confirmation, draw_outcomes, write_league
from tune_cure.confirmation.seed_words import FEW_SEEDS_WARNINGS
from tune_cure.evaluation.names import WITHOUT_AUTOATTACK
from tune_cure.league.conclusions import what_cannot_be_said, what_tuning_was_worth, who_wins
from tune_cure.league.folder import LeagueConfig
from tune_cure.league.methods import Entry
from tune_cure.league.standings import Standings


def stand(winners: dict[str, np.ndarray], presets: dict[str, np.ndarray] | None = None) -> Standings:
    return Standings([*winners], build_confirmation(winners, presets), {})


def limits(standings: Standings) -> str:
    entries = {name: Entry(training={}) for name in (*standings.methods, "other")}
    return " ".join(what_cannot_be_said(standings, LeagueConfig(space="x", methods=entries, trials=1, shared={})))


def test_a_method_that_is_better_than_each_other_one_wins() -> None:
    standings = stand(draw_outcomes({"low": 0.3, "high": 0.6, "middle": 0.45}))
    first, second = who_wins(standings)
    assert first.startswith("high wins: it has ")
    assert first.endswith(" under AutoAttack at epsilon 0.05 (12.8/255) (3 seeds, 300 test images), and is better than "
                          "each of the others.")  # fmt: skip
    row = standings.pairs.iloc[0]
    assert f"The next one, middle, has {100 * standings.runs('middle')['autoattack'].mean():.1f}" in second
    assert f"{100 * row['difference']:+.1f} points for high (simultaneous 95% interval " in second


def test_nobody_wins_where_the_first_cannot_be_told_from_the_next() -> None:
    copies = draw_outcomes({"cure": 0.55, "low": 0.3})
    sentences = who_wins(stand({**copies, "cure2": copies["cure"]}))
    assert sentences[0] == "Nobody wins: cure is first, but cannot be told from cure2."
    assert sentences[-1] == "cure is better than low."


def test_a_first_method_with_masked_gradients_is_flagged_before_it_is_crowned() -> None:
    standings = stand(draw_outcomes({"masked": 0.5, "sound": 0.3}))
    for (name, _, _), arrays in standings.confirmation.outcomes.items():
        wrong = np.flatnonzero(~arrays["autoattack"])[:60]
        for attack in WITHOUT_AUTOATTACK if name == "masked" else ():
            arrays[attack] = arrays[attack].copy()
            arrays[attack][wrong] = True
    sentences = who_wins(standings)
    assert sentences[0].startswith("masked leads, but is not named the winner: it has ")
    assert sentences[-1].startswith("Flagged: masked: PGD-50-10 accuracy is up to 20.0 points above AutoAttack's: ")


@pytest.mark.parametrize(
    ("few_steps_miss", "verb"), [(36, "wins"), (60, "leads, but is not named the winner")]
)  # of 300 images
def test_a_first_method_is_not_crowned_if_the_pgd_of_its_search_finds_far_less_than_autoattack(
    few_steps_miss: int, verb: str
) -> None:
    standings = stand(draw_outcomes({"first": 0.5, "last": 0.3}))
    for (name, _, _), arrays in standings.confirmation.outcomes.items():
        wrong = np.flatnonzero(~arrays["autoattack"])
        missed = {"pgd_10": few_steps_miss, "fgsm": few_steps_miss, "clean": few_steps_miss, "pgd_50_10": 18}
        for attack, number in missed.items() if name == "first" else ():
            arrays[attack] = arrays[attack].copy()
            arrays[attack][wrong[:number]] = True
    sentences = who_wins(standings)
    assert sentences[0].startswith(f"first {verb}: it has ")
    flagged = [sentence.partition(": a search")[0] for sentence in sentences if "Flagged" in sentence]
    is_crowned = verb == "wins"
    assert flagged == [] if is_crowned else ["Flagged: first: PGD-10 accuracy is up to 20.0 points above AutoAttack's"]


def test_a_method_that_always_gives_one_answer_is_not_crowned() -> None:
    drawn = draw_outcomes({"low": 0.3, "middle": 0.45})
    confirmation = build_confirmation({"fixed": np.tile(np.arange(300) < 210, (3, 1)), **drawn}, chance=0.7)
    confirmation.table.loc[confirmation.table["contender"].ne("fixed"), "clean"] = 0.9
    sentences = who_wins(Standings(["fixed", "low", "middle"], confirmation, {}))
    assert sentences[0].startswith("fixed leads, but is not named the winner: it has 70.0")
    assert sentences[-1] == "fixed is not clearly above chance: one fixed answer withstands any attack as well."


def test_each_of_the_leading_methods_that_is_at_chance_is_named() -> None:
    drawn = {**draw_outcomes({"learned": 0.7}), "fixed": np.tile(np.arange(300) < 210, (3, 1))}
    confirmation = build_confirmation(drawn, chance=0.7)
    confirmation.table.loc[confirmation.table["contender"].eq("learned"), ["clean", "autoattack"]] = 0.95
    sentences = who_wins(Standings(["learned", "fixed"], confirmation, {}))
    assert sentences[0].startswith("Nobody wins: ")
    assert [sentence.split()[0] for sentence in sentences if "chance" in sentence] == ["fixed"]


def test_before_all_have_been_judged_nobody_is_crowned() -> None:
    confirmation = build_confirmation(draw_outcomes({"low": 0.3, "high": 0.6}))
    assert who_wins(Standings(["low", "high"], confirmation, {}))[0].startswith("high wins: it has ")
    assert who_wins(Standings(["low", "high", "later"], confirmation, {}))[0].startswith("high leads so far: it has ")
    confirmation.num_planned += 1
    assert who_wins(Standings(["low", "high"], confirmation, {}))[0].startswith("high leads so far: it has ")


def test_a_method_without_a_sound_trial_keeps_nobody_from_winning(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"low": "cure", "high": "pgd", "unsound": "fgsm_rs"})
    results = league.results()
    results["unsound"].trials["status"] = "catastrophic_overfitting"
    confirmation = build_confirmation(draw_outcomes({"low": 0.3, "high": 0.6}))
    standings = Standings(league.methods, confirmation, results)
    assert who_wins(standings)[0].startswith("high wins: it has ")
    assert "unsound has no place: no trial of its search has come to a sound end." in limits(standings)
    del results["unsound"]
    assert who_wins(Standings(league.methods, confirmation, results))[0].startswith("high leads so far: it has ")


def test_a_winner_that_is_still_to_be_judged_keeps_others_from_winning(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"low": "cure", "high": "pgd", "later": "fgsm_rs"})
    standings = Standings(
        league.methods, build_confirmation(draw_outcomes({"low": 0.3, "high": 0.6})), league.results()
    )
    assert who_wins(standings)[0].startswith("high leads so far: it has ")
    assert "later has no place: its winner has not been judged yet." in limits(standings)


def test_what_tuning_was_worth_is_said_with_an_interval_where_it_can_be_told() -> None:
    drawn = draw_outcomes({"a": 0.55, "b": 0.5, "a0": 0.35, "b0": 0.5})
    standings = stand({"a": drawn["a"], "b": drawn["b"]}, {"a": drawn["a0"], "b": drawn["b0"]})
    helped, unknown = what_tuning_was_worth(standings)
    assert helped.startswith(f"Tuning helped a ({100 * standings.tuning.iloc[0]['difference']:+.1f} points, ")
    assert unknown == "Whether tuning helped b cannot be told."
    assert what_tuning_was_worth(stand(draw_outcomes({"a": 0.5, "b": 0.4}))) == []


def test_tuning_did_not_help_a_method_that_always_gives_one_answer() -> None:
    drawn = draw_outcomes({"learned": 0.55, "preset": 0.3})
    never, always = np.zeros((3, 300), dtype=bool), np.tile(np.arange(300) < 60, (3, 1))
    presets = {"learned": drawn["preset"], "fixed": never}
    confirmation = build_confirmation({"learned": drawn["learned"], "fixed": always}, presets, chance=0.2)
    standings = Standings(["learned", "fixed"], confirmation, {})
    assert standings.tuning.set_index("first")["verdict"].to_dict() == {"learned": "better", "fixed": "better"}
    helped, unknown = what_tuning_was_worth(standings)
    assert helped.startswith("Tuning helped learned (") and " and " not in helped
    assert unknown.startswith("Whether tuning helped fixed cannot be told, because neither fixed nor ")
    assert unknown.endswith(" is clearly above chance without attack.")


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_are_warned_of(seeds: int) -> None:
    said = limits(stand(draw_outcomes({"a": 0.5, "b": 0.4}, seeds=seeds)))
    assert [number for number, text in FEW_SEEDS_WARNINGS.items() if text in said] == [seeds][: seeds < 3]


def test_networks_that_withstand_nothing_are_at_chance_and_of_three_seeds() -> None:
    confirmation = build_confirmation({"a": np.zeros((3, 300), dtype=bool), "b": np.zeros((3, 300), dtype=bool)})
    confirmation.table["clean"] = 0.9
    said = limits(Standings(["a", "b"], confirmation, {}))
    assert "Not clearly above chance under AutoAttack: a and b." in said
    assert FEW_SEEDS_WARNINGS[1] not in said


def test_runs_that_diverged_are_named() -> None:
    confirmation = build_confirmation(draw_outcomes({"a": 0.5, "b": 0.4}))
    confirmation.table.loc[1, "diverged"] = True
    assert "a, seed 2, diverged." in limits(Standings(["a", "b"], confirmation, {}))


def test_a_method_whose_seeds_differ_far_more_is_named() -> None:
    found = draw_outcomes({"a": 0.5, "b": 0.5, "c": 0.5, "collapses": 0.5}, deviation=0.01)
    found["collapses"][2] = False
    said = limits(stand(found))
    assert "The seeds of collapses differ far more than those of the other methods (standard deviation " in said


def test_runs_and_methods_that_are_left_are_named() -> None:
    found = draw_outcomes({"a": 0.5})
    confirmation = build_confirmation({"a": found["a"], "b": found["a"]})
    confirmation.num_planned = 12
    said = limits(Standings(["a", "b", "c"], confirmation, {}))
    assert "The league is not over: 6 of 12 runs have been judged so far." in said
    assert "c has no place: its search has not begun." in said
    assert "1 of 1 pair of methods cannot be told apart" in said


def test_a_league_without_autoattack_says_that_pgd_may_overrate_a_method() -> None:
    confirmation = build_confirmation(draw_outcomes({"a": 0.5, "b": 0.4}))
    confirmation.table["autoattack"] = np.nan
    assert "AutoAttack has not judged all winners: PGD-50-10 may overrate a method." in limits(
        Standings(["a", "b"], confirmation, {})
    )
