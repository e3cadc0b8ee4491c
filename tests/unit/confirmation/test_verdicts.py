import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.confirmations import NUM_IMAGES, PLAN, write_outcomes, write_quick_search
from tune_cure.confirmation import plan as confirm
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import COLUMNS, Confirmation
from tune_cure.reports import confirmation_page
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment
from tune_cure.utils.files import replace_arrays


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    result = write_quick_search(tmp_path)
    plan = dataclasses.replace(PLAN, seeds=(1, 2, 3), examples=NUM_IMAGES, autoattack=True)
    return confirm.plan_jobs(result, choose_candidates(result, 2, ["start_from", "fgsm"]), plan)


def finished(jobs: list[Job], **shares: float) -> Confirmation:
    for job in jobs:
        write_outcomes(job, shares.get(job.candidate.kind, 0.5))
    return Confirmation(jobs)


def test_the_table_has_a_row_for_each_run_and_radius(jobs: list[Job]) -> None:
    table = finished(jobs).table
    assert table.columns.tolist() == list(COLUMNS)
    assert len(table) == len(jobs)
    assert table["seed"].tolist() == [job.seed for job in jobs]
    assert table["warnings"].eq("").all()
    described = Path("docs/columns.md").read_text()
    assert all(f"`{name}`" in described or f" {name}" in described for name in COLUMNS)


def test_means_are_over_the_seeds(jobs: list[Job]) -> None:
    found = finished(jobs)
    means = found.means().set_index("contender")
    name = jobs[0].candidate.name
    seeds = found.table[found.table["contender"] == name]["autoattack"]
    assert means.loc[name, "autoattack"] == pytest.approx(seeds.mean())
    assert means.loc[name, "autoattack_sd"] == pytest.approx(seeds.std())
    assert means.loc[name, "seeds"] == 3


def test_a_leader_that_is_better_is_found_better_and_equal_ones_cannot_be_told_apart(jobs: list[Job]) -> None:
    comparisons = finished(jobs, leader=0.6, baseline=0.4).comparisons()
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


def test_nothing_done_is_an_empty_table(jobs: list[Job]) -> None:
    found = Confirmation(jobs)
    assert found.table.empty
    assert found.means().empty
    assert found.comparisons().empty


def test_the_files_hold_the_same_and_every_single_outcome(jobs: list[Job], tmp_path: Path) -> None:
    found = finished(jobs)
    found.write(tmp_path)
    read = pd.read_csv(tmp_path / "confirm.csv")
    assert read["autoattack"].tolist() == found.table["autoattack"].tolist()
    content = json.loads((tmp_path / "confirm.json").read_text())
    assert len(content["comparisons"]) == len(found.comparisons())
    with np.load(tmp_path / "outcomes.npz") as packed:
        of = packed[f"{jobs[0].candidate.name}/1/0.15/autoattack"]
    assert of.mean() == found.table["autoattack"].iloc[0]


def test_the_page_says_who_is_better_and_what_is_to_be_warned_of(jobs: list[Job]) -> None:
    result = SearchResult(jobs[0].folder.parents[2])
    finished(jobs, leader=0.6, baseline=0.4)
    folder = result.directory / run_files.CONFIRM
    confirmation_page.write(result, jobs, folder)
    text = (folder / run_files.CONFIRM_REPORT).read_text()
    assert "<strong>better</strong>" in text
    assert "No sign of masked gradients in any run." in text
    assert "https://" not in text.split("<script>")[0].split("</style>")[1]
    assert text.count("Plotly.newPlot") == 1


def test_the_page_says_how_it_was_run_itself_and_how_the_search_was(jobs: list[Job]) -> None:
    result = SearchResult(jobs[0].folder.parents[2])
    folder = result.directory / run_files.CONFIRM
    folder.mkdir(exist_ok=True)
    for of, command in ((result.directory, "tune-cure search"), (folder, "tune-cure confirm")):
        (of / environment.FILE).write_text(json.dumps({"command": command, "cpus": 2}))
    finished(jobs)
    confirmation_page.write(result, jobs, folder)
    text = (folder / run_files.CONFIRM_REPORT).read_text()
    own, searched = text.split("How it was run")[1].split("How the search was run")
    assert "tune-cure confirm" in own and "tune-cure search" not in own
    assert "tune-cure search" in searched and "spec.yaml" in searched


def test_what_several_runs_show_is_said_once_with_the_largest_difference(jobs: list[Job]) -> None:
    for job in jobs:
        write_outcomes(job, 0.5)
    name = jobs[0].candidate.name
    for job, more in zip([job for job in jobs if job.candidate.name == name][:2], (40, 60), strict=True):
        file = job.outcome_folder(0.15) / run_files.OUTCOMES
        with np.load(file) as content:
            found = {key: content[key].copy() for key in content.files}
        wrong = np.flatnonzero(~found["fgsm"])
        found["fgsm"][wrong[: more * NUM_IMAGES // 100]] = True
        replace_arrays(file, found)
    ((epsilon, said),) = Confirmation(jobs).masking_warnings()
    assert epsilon == 0.15
    largest = Confirmation(jobs).table.query("contender == @name").eval("fgsm - pgd_10").max()
    assert said.startswith(f"FGSM accuracy is up to {100 * largest:.1f} points above PGD-10's, {name} (2 of 3 seeds): ")
