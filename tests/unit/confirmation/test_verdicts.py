import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.confirmations import (
    NUM_IMAGES,
    finish,
    judge_at,
    plan_quick_jobs,
    write_best_outcomes,
    write_outcomes,
)
from tests.support.leagues import build_confirmation, draw_outcomes
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import COLUMNS, Confirmation
from tune_cure.search import run_files
from tune_cure.utils.files import replace_arrays


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return plan_quick_jobs(tmp_path)


def test_the_table_has_a_row_for_each_run_and_radius(jobs: list[Job]) -> None:
    table = finish(jobs).table
    assert table.columns.tolist() == list(COLUMNS)
    assert len(table) == len(jobs)
    assert table["seed"].tolist() == [job.seed for job in jobs]
    assert table["warnings"].eq("").all()
    described = Path("docs/columns.md").read_text()
    assert all(f"`{name}`" in described or f" {name}" in described for name in COLUMNS)


def test_means_are_over_the_seeds(jobs: list[Job]) -> None:
    confirmation = finish(jobs)
    means = confirmation.means().set_index("contender")
    name = jobs[0].candidate.name
    seeds = confirmation.table[confirmation.table["contender"] == name]["autoattack"]
    assert means.loc[name, "autoattack"] == pytest.approx(seeds.mean())
    assert means.loc[name, "autoattack_sd"] == pytest.approx(seeds.std())
    assert means.loc[name, "seeds"] == 3


def test_the_mean_under_an_attack_is_over_the_seeds_that_it_has_judged(jobs: list[Job], tmp_path: Path) -> None:
    for job in jobs:
        write_outcomes(job, 0.5, autoattack=job.seed < 3)
    confirmation = Confirmation(jobs)
    confirmation.write(tmp_path)
    (row, *_) = json.loads((tmp_path / "confirm.json").read_text())["means"]
    seeds = confirmation.table.query("contender == @row['contender']")["autoattack"][:2]
    assert (row["seeds"], row["pgd_50_10_seeds"], row["autoattack_seeds"]) == (3, 3, 2)
    assert (row["autoattack"], row["autoattack_sd"]) == (pytest.approx(seeds.mean()), pytest.approx(seeds.std()))


def test_clean_accuracy_is_compared_once_and_not_at_every_radius(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    finish(jobs)
    for job in jobs:
        write_best_outcomes(job, 40, best_epoch=1)
    confirmation = Confirmation(judge_at(jobs, 0.05))
    for table, names in (
        (confirmation.comparisons(), ["first", "second"]),
        (confirmation.robust_overfitting(), ["contender"]),
    ):
        num_rows = table.groupby("metric")["epsilon"].count()
        num_pairs = len(table.drop_duplicates(names))
        assert num_rows.to_dict() == {"autoattack": 2 * num_pairs, "pgd_50_10": 2 * num_pairs, "clean": num_pairs}


def test_a_leader_that_is_better_is_found_better_and_equal_ones_cannot_be_told_apart(jobs: list[Job]) -> None:
    comparisons = finish(jobs, leader=0.6, baseline=0.4).comparisons()
    leaders = comparisons[comparisons["second"].str.startswith("trial-")]
    baselines = comparisons[~comparisons["second"].str.startswith("trial-")]
    assert set(baselines["verdict"]) == {"better"}
    assert (baselines["difference"] - 0.2).abs().max() < 0.05
    assert set(leaders["verdict"]) == {"cannot tell"}
    assert (comparisons["p_value_holm"] >= comparisons["p_value"]).all()
    assert (
        (comparisons["low"] <= comparisons["difference"]) & (comparisons["difference"] <= comparisons["high"])
    ).all()


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_among_equal_candidates_a_false_verdict_is_found_on_the_question_once_in_twenty_and_so_on_the_other_pairs(
    num_seeds: int,
) -> None:
    num_confirmations, of_question, of_others = 40, 0, 0
    for seed in range(num_confirmations):
        drawn = draw_outcomes(
            dict.fromkeys(["a", "b", "ablation", "c", "d"], 0.5),
            seeds=num_seeds, images=100, deviation=0.05, seed=seed,
        )  # fmt: skip
        confirmation = of_leaders(drawn)
        assert confirmation.question == ("a", "ablation")
        rows = confirmation.comparisons().query("metric == 'autoattack'")
        is_question = rows["first"].eq("a") & rows["second"].eq("ablation")
        is_told = rows["verdict"].ne("cannot tell")
        assert rows["p_value_holm"].eq(rows["p_value"])[is_question].all()
        of_question += bool(is_told[is_question].any())
        of_others += bool(is_told[~is_question].any())
    at_most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / num_confirmations)
    assert of_question / num_confirmations <= at_most
    assert of_others / num_confirmations <= at_most


KINDS = dict.fromkeys("ab", "leader") | dict.fromkeys(["c", "d", "e", "ablation"], "baseline")


def of_leaders(drawn: dict[str, np.ndarray]) -> Confirmation:
    """Return a confirmation whose winner is a, with the kinds of `KINDS`."""
    confirmation = build_confirmation(drawn)
    confirmation.table["kind"] = confirmation.table["contender"].map(KINDS)
    confirmation.winner = "a"
    return confirmation


def test_all_candidates_say_how_much_the_seeds_of_a_pair_differ() -> None:
    drawn = draw_outcomes({"a": 0.5, "c": 0.5, "d": 0.5}, deviation={"a": 0.02, "c": 0.02, "d": 0.08}, seed=5)
    intervals = []
    for names in (("a", "c"), ("a", "c", "d")):
        confirmation = of_leaders({name: drawn[name] for name in names})
        row = confirmation.comparisons().query("metric == 'autoattack' and second == 'c'").iloc[0]
        intervals.append(row["high"] - row["low"])
    assert intervals[1] > intervals[0]


def test_a_baseline_that_collapses_with_one_seed_is_named_and_does_not_widen_other_intervals() -> None:
    drawn = draw_outcomes(dict.fromkeys("abcde", 0.5), deviation=0.01)
    drawn["c"][2] = False
    confirmation = of_leaders(drawn)
    assert confirmation.seed_spread(0.05, "autoattack").unsteady == {"c"}
    comparisons = confirmation.comparisons().query("metric == 'autoattack'").set_index(["first", "second"])
    width = comparisons["high"] - comparisons["low"]
    assert width["a", "c"] > 3 * width["a", "d"]
    _, (warning,) = confirmation.describe_seeds(confirmation.comparisons())
    assert warning.startswith("The seeds of c differ far more than those of the other candidates (standard deviation ")
    assert warning.endswith(": more seeds are needed to place it.")


def test_only_seeds_that_both_have_are_compared(jobs: list[Job]) -> None:
    for job in jobs[:5]:  # all of the first seed, and one of the second
        write_outcomes(job, 0.5)
    comparisons = Confirmation(jobs).comparisons()
    assert set(comparisons["seeds"]) == {1}


def test_without_finished_jobs_all_tables_are_empty(jobs: list[Job]) -> None:
    confirmation = Confirmation(jobs)
    assert confirmation.table.empty
    assert confirmation.means().empty
    assert confirmation.comparisons().empty


def test_the_files_hold_the_table_and_every_single_outcome(jobs: list[Job], tmp_path: Path) -> None:
    confirmation = finish(jobs)
    confirmation.write(tmp_path)
    read = pd.read_csv(tmp_path / "confirm.csv")
    assert read["autoattack"].tolist() == confirmation.table["autoattack"].tolist()
    content = json.loads((tmp_path / "confirm.json").read_text())
    assert len(content["comparisons"]) == len(confirmation.comparisons())
    with np.load(tmp_path / "outcomes.npz") as packed:
        outcomes = packed[f"{jobs[0].candidate.name}/1/0.15/autoattack"]
    assert outcomes.mean() == confirmation.table["autoattack"].iloc[0]


def test_each_row_has_the_version_of_autoattack_that_judged_last_and_best_weights(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)[:4]
    for job, version in zip(jobs, ("0.2.0", None, "0.2.0", "0.2.0"), strict=True):
        write_outcomes(job, 0.5, version=version)
        write_best_outcomes(job, 3, best_epoch=1)
    file = jobs[2].outcome_folder(0.15, "best") / run_files.OUTCOMES
    replace_arrays(file, read_outcomes(file, jobs[2].plan.examples) | {"autoattack_version": np.array("0.3.0")})
    confirmation = Confirmation(jobs)
    assert confirmation.table["autoattack_version"].tolist() == ["0.2.0", "", "0.2.0, 0.3.0", "0.2.0"]
    assert confirmation.autoattack == (
        "AutoAttack is that of the package pyautoattack 0.2.0 and 0.3.0, or of a version that was not recorded."
    )


def test_without_autoattack_there_is_no_version(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, autoattack=False)[:1]
    write_outcomes(jobs[0], 0.5, autoattack=False)
    confirmation = Confirmation(jobs)
    assert (confirmation.table["autoattack_version"].tolist(), confirmation.autoattack) == ([""], "")


def test_a_sign_of_masking_in_several_runs_is_one_warning_with_the_largest_difference(jobs: list[Job]) -> None:
    for job in jobs:
        write_outcomes(job, 0.5)
    name = jobs[0].candidate.name
    for job, more in zip([job for job in jobs if job.candidate.name == name][:2], (40, 60), strict=True):
        file = job.outcome_folder(0.15) / run_files.OUTCOMES
        with np.load(file) as content:
            arrays = {key: content[key].copy() for key in content.files}
        wrong = np.flatnonzero(~arrays["fgsm"])
        arrays["fgsm"][wrong[: more * NUM_IMAGES // 100]] = True
        replace_arrays(file, arrays)
    ((epsilon, message),) = Confirmation(jobs).masking_warnings()
    assert epsilon == 0.15
    largest = Confirmation(jobs).table.query("contender == @name").eval("fgsm - pgd_10").max()
    assert message.startswith(
        f"FGSM accuracy is up to {100 * largest:.1f} points above PGD-10's, {name} (2 of 3 seeds): "
    )


def test_robust_overfitting_is_best_minus_last_on_the_same_images(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    finish(jobs)
    name = jobs[0].candidate.name
    for job in jobs:
        if job.candidate.name == name:
            write_best_outcomes(job, 40, best_epoch=job.seed)
    confirmation = Confirmation(jobs)
    rows = confirmation.robust_overfitting()
    assert set(rows["contender"]) == {name}  # the others have no best weights that were judged
    assert rows["metric"].tolist() == ["autoattack", "pgd_50_10", "clean"]
    row = rows.iloc[0]
    assert row["difference"] == pytest.approx(40 / NUM_IMAGES)
    assert row["best"] == pytest.approx(row["last"] + 40 / NUM_IMAGES)
    assert (row["best_epochs"], row["epochs"], row["held_out"], row["seeds"]) == ([1, 2, 3], 2, 50, 3)
    assert 0 < row["low"] < 0.1 < row["high"]
    own = confirmation.table["contender"].eq(name)
    assert confirmation.table.loc[own, "robust_overfitting"].tolist() == pytest.approx([0.1] * 3)
    assert confirmation.table.loc[~own, ["best_autoattack", "best_epoch", "robust_overfitting"]].isna().all(axis=None)
    assert confirmation.table["held_out"].eq(50).all()


def test_verdicts_and_means_go_by_the_last_weights(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    before = finish(jobs, leader=0.6, baseline=0.4)
    for job in jobs:
        write_best_outcomes(job, -100 if job.candidate.kind == "leader" else 100, best_epoch=1)
    after = Confirmation(jobs)
    pd.testing.assert_frame_equal(after.comparisons(), before.comparisons())
    pd.testing.assert_frame_equal(after.means(), before.means())


def test_robust_overfitting_and_the_outcomes_of_best_weights_are_in_the_files(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    finish(jobs)
    for job in jobs:
        write_best_outcomes(job, 40, best_epoch=1)
    confirmation = Confirmation(jobs)
    confirmation.write(tmp_path)
    rows = json.loads((tmp_path / "confirm.json").read_text())["robust_overfitting"]
    assert {row["contender"]: row["best_epochs"] for row in rows} == {job.candidate.name: [1, 1, 1] for job in jobs}
    assert all(row["difference"] == pytest.approx(0.1) for row in rows)
    with np.load(tmp_path / "outcomes.npz") as packed:
        best, last = (packed[f"{jobs[0].candidate.name}/1/0.15/{name}"] for name in ("best_autoattack", "autoattack"))
    assert (best & ~last).sum() == 40 and not (last & ~best).any()
