import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.confirmations import NUM_IMAGES, finish, plan_quick_jobs, write_outcomes
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
