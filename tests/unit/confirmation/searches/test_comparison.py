import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from tests.support.comparisons import (
    CONFIRMED,
    EPOCH_HOURS,
    one_trial,
    pair,
    pair_with_confirmation,
    write_epochs,
)
from tune_cure.confirmation import verdicts
from tune_cure.confirmation.searches import comparison
from tune_cure.confirmation.searches.comparison import ComparisonError
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.reports.comparison_text import side_by_side
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult


def verdict(first: SearchResult, second: SearchResult) -> dict[str, Any]:
    return dict(comparison.compare_winners(pair(first, second)).iloc[0])


def test_two_identical_searches_cannot_be_told_apart(tmp_path: Path) -> None:
    row = verdict(one_trial(tmp_path / "a", 0.5), one_trial(tmp_path / "b", 0.5))
    assert row["verdict"] == "cannot tell"
    assert row["difference"] == 0


def test_a_difference_far_beyond_the_errors_gets_a_verdict(tmp_path: Path) -> None:
    good, bad = one_trial(tmp_path / "good", 0.8), one_trial(tmp_path / "bad", 0.3)
    assert verdict(good, bad)["verdict"] == "better"
    assert verdict(bad, good)["verdict"] == "worse"


@pytest.mark.parametrize(("level", "reason"), [(0.95, "no trial of good is clearly above chance"), (0.2, "")])
def test_a_winner_at_chance_is_not_better(level: float, reason: str, tmp_path: Path) -> None:
    good, bad = one_trial(tmp_path / "good", 0.8), one_trial(tmp_path / "bad", 0.3)
    content = {"command": "tune-cure search", "chance_level": level}
    (good.directory / run_files.ENVIRONMENT).write_text(json.dumps(content))
    for row in (verdict(good, bad), verdict(bad, good)):
        assert row["reason"] == reason and bool(row["verdict"]) != bool(reason)


def test_the_lower_objective_is_better_in_mode_min(tmp_path: Path) -> None:
    low, high = (one_trial(tmp_path / str(pgd), pgd, "search.mode=min") for pgd in (0.3, 0.8))
    assert verdict(low, high)["verdict"] == "better"
    assert verdict(low, high)["difference"] == pytest.approx(-0.5)


def test_the_interval_is_that_of_accuracies_on_different_images(tmp_path: Path) -> None:
    row = verdict(one_trial(tmp_path / "a", 0.6), one_trial(tmp_path / "b", 0.5))
    error = math.sqrt(0.6 * 0.4 / 100 + 0.5 * 0.5 / 100)
    assert (row["low"], row["high"]) == (
        pytest.approx(0.1 - 1.959964 * error),
        pytest.approx(0.1 + 1.959964 * error),
    )
    assert row["p_value"] == pytest.approx(2 * stats.norm.sf(0.1 / error))
    assert row["verdict"] == "cannot tell"


def test_p_values_of_three_searches_are_adjusted_for_all_pairs(tmp_path: Path) -> None:
    searches = comparison.name_searches([one_trial(tmp_path / str(pgd), pgd) for pgd in (0.5, 0.64, 0.64001)])
    frame = comparison.compare_winners(searches)
    assert frame["p_value"].iloc[0] < 0.05 < frame["p_value_holm"].iloc[0]
    assert set(frame["verdict"]) == {"cannot tell"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.epsilon=0.1", "different evaluation: PGD-3 with 1 start at epsilon 0.05"),
        ("evaluation.steps=4", "different evaluation: PGD-3 with 1 start"),
        ("evaluation.examples=90", "different evaluation: PGD-3 with 1 start"),
        ("search.metric=clean_accuracy", "different metric: pgd_accuracy_best (max) (a); clean_accuracy (max) (b)"),
        ("search.mode=min", "different metric: pgd_accuracy_best (max) (a); pgd_accuracy_best (min) (b)"),
        ("data.dataset=svhn", "different data set: digits (a); svhn (b)"),
        ("data.image_size=16", "different data set: digits (a); digits at 16 pixels"),
    ],
)
def test_accuracies_of_different_things_get_a_reason_instead_of_a_verdict(
    override: str, message: str, tmp_path: Path
) -> None:
    first, second = one_trial(tmp_path / "a", 0.8), one_trial(tmp_path / "b", 0.2, override)
    row = verdict(first, second)
    assert row["verdict"] == ""
    assert row["reason"] == message.split(":")[0]
    assert math.isnan(row["difference"])
    (warning,) = comparison.comparison_warnings(pair(first, second))
    assert warning.startswith(message)
    assert warning.endswith("(b): no verdict between these")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split_seed=1", "different validation images: 100 by split_seed 0 (a); 100 by split_seed 1 (b)"),
        ("data.train_examples=null", "different training images: 600 (a); all (b)"),
        ("model.width=8", "different network: small_cnn of width 4 (a); small_cnn of width 8 (b)"),
        ("training.epochs=6", "different epochs of a whole trial: 4 (a); 6 (b)"),
        ("search.constraints=[clean_accuracy >= 0.1]", "different constraints: none (a); clean_accuracy >= 0.1 (b)"),
    ],
)
def test_other_differences_give_a_warning_beside_the_verdict(override: str, message: str, tmp_path: Path) -> None:
    first, second = one_trial(tmp_path / "a", 0.8), one_trial(tmp_path / "b", 0.2, override)
    assert verdict(first, second)["verdict"] == "better"
    warnings = comparison.comparison_warnings(pair(first, second))
    assert len(warnings) == 1
    assert warnings[0].startswith(message)


def test_spaces_may_differ_without_a_warning(tmp_path: Path) -> None:
    searches = pair(one_trial(tmp_path / "a", 0.8), one_trial(tmp_path / "b", 0.2, "space.h={uniform: [0.5, 9]}"))
    assert comparison.comparison_warnings(searches) == []
    frame = comparison.compare_spaces(searches).set_index("hyperparameter")
    assert frame.loc["h"].tolist() == ["uniform [0.5, 2]", "uniform [0.5, 9]", True]
    assert frame.loc["lambda", "differs"] == False  # noqa: E712


def test_searches_of_different_methods_are_shown_with_their_methods(tmp_path: Path) -> None:
    searches = pair(one_trial(tmp_path / "a", 0.8), one_trial(tmp_path / "b", 0.2, "training.method=gat"))
    frame = comparison.compare_spaces(searches).set_index("hyperparameter")
    assert frame.loc["method"].tolist() == ["fixed: none", "fixed: gat", True]
    assert frame.loc["regularizer"].tolist() == ["fixed: cure", "fixed: gat", True]


def test_a_hyperparameter_fixed_in_one_search_is_shown_with_its_value(tmp_path: Path) -> None:
    start = "start_from=[{lambda: 0.5, h: 1.0, lr_max: 0.02, epsilon: 0.1, momentum: 0.5}]"
    first = one_trial(tmp_path / "a", 0.8, "space.momentum={uniform: [0, 0.9]}", start, momentum=0.5)
    searches = pair(first, one_trial(tmp_path / "b", 0.2, "training.momentum=0.7"))
    frame = comparison.compare_spaces(searches).set_index("hyperparameter")
    assert frame.loc["momentum"].tolist() == ["uniform [0, 0.9]", "fixed: 0.7", True]
    assert comparison.build_comparison_table(searches)["best_momentum"].tolist() == [0.5, 0.7]


def test_winners_judged_again_in_the_same_way_are_compared_by_that(tmp_path: Path) -> None:
    first = write_epochs(tmp_path / "a", [(0, 1, 0.8), (1, 1, 0.7)], again={0: 0.3, 1: 0.6})
    second = write_epochs(tmp_path / "b", [(0, 1, 0.5), (1, 1, 0.7)], again={0: 0.4, 1: 0.2})
    row = verdict(first, second)
    assert row["measure"] == "fresh_pgd_accuracy"
    assert row["difference"] == pytest.approx(0.6 - 0.4)
    assert comparison.comparison_warnings(pair(first, second)) == []


@pytest.mark.parametrize(("override", "again"), [("rescore.top=3", {}), ("rescore.steps=50", {0: 0.1})])
def test_winners_judged_again_in_different_ways_are_compared_by_their_objectives(
    override: str, again: dict[int, float], tmp_path: Path
) -> None:
    first, second = (
        one_trial(tmp_path / "a", 0.8, again={0: 0.7}),
        one_trial(tmp_path / "b", 0.8, override, again=again),
    )
    row = verdict(first, second)
    assert (row["measure"], row["difference"]) == ("pgd_accuracy_best", 0)
    (warning,) = comparison.comparison_warnings(pair(first, second))
    assert warning.startswith("winners judged again differently: PGD-20 with 10 starts at epsilon 0.05")
    assert "these numbers cannot be compared" in warning


def test_a_search_without_a_sound_winner_gets_no_verdict(tmp_path: Path) -> None:
    good = one_trial(tmp_path / "good", 0.8)
    unsound = one_trial(tmp_path / "unsound", 0.9, statuses={0: "catastrophic_overfitting"})
    nothing = write_epochs(tmp_path / "nothing", [])
    infeasible = one_trial(tmp_path / "infeasible", 0.9, "search.constraints=[clean_accuracy >= 0.99]")
    assert verdict(good, unsound)["reason"] == "no trial of unsound came to a sound end"
    assert verdict(nothing, good)["reason"] == "no trial of nothing has been judged yet"
    assert verdict(good, infeasible)["reason"] == "no trial of infeasible keeps its constraints"
    assert comparison.build_comparison_table(pair(good, nothing))["trials_ended"].tolist() == [1, 0]


def test_the_row_of_a_search_has_its_counts_winner_gain_and_cost(tmp_path: Path) -> None:
    lines = [(0, 1, 0.3), (1, 1, 0.5), (2, 1, 0.1), (1, 2, 0.6)]
    first = write_epochs(tmp_path / "a", lines, statuses={2: "stopped"})
    row = comparison.build_comparison_table(pair(first, one_trial(tmp_path / "b", 0.4))).iloc[0]
    assert (row["search"], row["trials_ended"], row["trials_completed"], row["trials_stopped"]) == ("a", 3, 2, 1)
    assert (row["trial"], row["objective"], row["clean_accuracy_best"]) == (1, 0.6, 0.8)
    assert row["objective_se"] == pytest.approx(math.sqrt(0.6 * 0.4 / 100))
    assert (row["start_from_objective"], row["gain"]) == (0.3, pytest.approx(0.3))
    assert row["gain_se"] == pytest.approx(math.sqrt((0.6 * 0.4 + 0.3 * 0.7) / 100))
    assert (row["epochs_trained"], row["device_hours"]) == (4, pytest.approx(4 * EPOCH_HOURS))
    assert (row["epochs_until_led"], row["device_hours_until_led"]) == (2, pytest.approx(2 * EPOCH_HOURS))
    assert row["best_lambda"] == 0.5


def test_a_gain_is_a_decrease_in_mode_min(tmp_path: Path) -> None:
    lines = [(0, 1, 0.5), (1, 1, 0.3)]
    searches = pair(*(write_epochs(tmp_path / name, lines, "search.mode=min") for name in "ab"))
    assert comparison.build_comparison_table(searches)["gain"].tolist() == pytest.approx([0.2, 0.2])


def test_an_unfinished_search_gives_a_warning(tmp_path: Path) -> None:
    over, running = (
        one_trial(tmp_path / "over", 0.4),
        write_epochs(tmp_path / "running", [(0, 1, 0.4), (1, 1, 0.4)], "search.trials=1", unfinished=[1]),
    )
    assert comparison.build_comparison_table(pair(over, running))["over"].tolist() == [True, False]
    assert (
        "running is unfinished: 1 of 2 trials have ended, and its winner may change"
        in comparison.comparison_warnings(pair(over, running))
    )


def test_the_confirmed_accuracies_are_the_winners_at_the_radius_of_the_search(tmp_path: Path) -> None:
    row = comparison.build_comparison_table(pair_with_confirmation(tmp_path, CONFIRMED)).iloc[0]
    assert (row["confirmed_seeds"], row["confirmed_examples"]) == (2, 359)
    assert [row[f"confirmed_{name}"] for name in COMPARED_ATTACKS] == pytest.approx([0.85, 0.55, 0.4])
    assert row["confirmed_clean_sd"] == pytest.approx(math.sqrt(0.005))
    assert row["confirmed_autoattack_parts"] == "AutoAttack"


def test_accuracies_under_autoattack_that_judged_some_seeds_alone_are_means_of_these(tmp_path: Path) -> None:
    searches = pair_with_confirmation(tmp_path, CONFIRMED.replace("0.8,0.6,0.4", "0.8,0.6,"))
    row = comparison.build_comparison_table(searches).iloc[0]
    assert (row["confirmed_autoattack"], row["confirmed_autoattack_seeds"], row["confirmed_seeds"]) == (0.4, 1, 2)
    lines = side_by_side(searches)
    assert lines["test set: AutoAttack"][0] == "40.0% (1 of 2 seeds)"
    assert lines["test set: PGD-50-10"][0] == "55.0 ± 7.1%"


def test_autoattack_without_its_targeted_parts_is_called_by_those_that_ran(tmp_path: Path) -> None:
    header, *rows = CONFIRMED.splitlines()
    content = "\n".join([f"{header},apgd_ce,apgd_t", *(f"{row},0.45," for row in rows)])
    searches = pair_with_confirmation(tmp_path, content)
    assert comparison.build_comparison_table(searches).iloc[0]["confirmed_autoattack_parts"] == "APGD-CE + Square"
    assert side_by_side(searches)["test set: AutoAttack"][0] == "40.0 ± 0.0% (APGD-CE + Square)"


def test_a_confirmation_without_the_winner_gives_no_accuracies(tmp_path: Path) -> None:
    table = comparison.build_comparison_table(pair_with_confirmation(tmp_path, CONFIRMED.replace("trial-0", "trial-7")))
    assert table["confirmed_seeds"].tolist() == [0, 0]
    assert table["confirmed_clean"].isna().all()


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", CONFIRMED.replace("0.9", "ninety")])
def test_a_damaged_confirmation_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=r"confirm\.csv: is no table of a confirmation"):
        comparison.build_comparison_table(pair_with_confirmation(tmp_path, content))


def test_a_confirmation_that_leads_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    searches = pair_with_confirmation(tmp_path, CONFIRMED)
    file = tmp_path / "a" / run_files.CONFIRMED
    file.rename(tmp_path / "elsewhere.csv")
    file.symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ComparisonError, match="is a link that leads out of the run's folder"):
        comparison.build_comparison_table(searches)


def test_the_confirmation_is_where_confirm_writes_it() -> None:
    assert Path(run_files.CONFIRM) / run_files.CONFIRM_TABLE == run_files.CONFIRMED
    assert set(COMPARED_ATTACKS) <= set(verdicts.COLUMNS)


def test_folders_with_the_same_name_are_named_with_their_parents(tmp_path: Path) -> None:
    results = [one_trial(tmp_path / folder / "run", 0.4) for folder in ("x/one", "y/two", "z/two")]
    assert list(comparison.name_searches(results)) == ["x/one/run", "y/two/run", "z/two/run"]
    assert list(comparison.name_searches(results[:2])) == ["one/run", "two/run"]


def test_one_search_or_one_given_twice_cannot_be_compared(tmp_path: Path) -> None:
    result = one_trial(tmp_path / "a", 0.4)
    with pytest.raises(ComparisonError, match="two folders or more are needed, but found 1"):
        comparison.name_searches([result])
    with pytest.raises(ComparisonError, match="is given twice"):
        comparison.name_searches([result, SearchResult(tmp_path / "." / "a")])


def test_different_devices_give_a_warning(tmp_path: Path) -> None:
    first, second = one_trial(tmp_path / "a", 0.4), one_trial(tmp_path / "b", 0.4)
    (tmp_path / "a" / "environment.json").write_text('{"gpus": ["H100", "H100"], "cpus": 8}')
    (tmp_path / "b" / "environment.json").write_text('{"gpus": [], "cpus": 2}')
    (warning,) = comparison.comparison_warnings(pair(first, second))
    assert warning == "different devices: 2 × H100 (a); 2 CPU cores (b): hours cannot be compared"
    (tmp_path / "b" / "environment.json").unlink()
    (warning,) = comparison.comparison_warnings(pair(first, second))
    assert warning == "different devices: 2 × H100 (a); not recorded (b): hours cannot be compared"
