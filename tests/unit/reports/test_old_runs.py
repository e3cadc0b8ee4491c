"""A finished search and its confirmation by version 0.1.0 are read and reported to the same numbers."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.old_runs import FOLDER, copy_run
from tune_cure import models
from tune_cure.confirmation.candidates import DEFAULT_BASELINES, choose_candidates, explain_baselines
from tune_cure.confirmation.plan import Plan, plan_jobs
from tune_cure.evaluation.names import ATTACKS
from tune_cure.reports import confirmation_page, search_page, tables
from tune_cure.search.results import SearchResult

FINISHED = FOLDER / "finished"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished search, without any table: all are made anew from journal and spec."""
    folder = copy_run("finished", tmp_path_factory.mktemp("old"))
    for path in [*folder.glob("*.csv"), *folder.glob("top_*"), *folder.glob("confirm/confirm.*")]:
        path.unlink()
    for name in ("summary.json", "best_config.yaml", "best_model.pt"):
        (folder / name).unlink()
    result = SearchResult(folder)
    tables.write_tables(result)
    tables.write_top_configurations(result)
    tables.write_best_model(result)
    return folder


@pytest.mark.parametrize("name", ["trials.csv", "epochs.csv", "best_config.csv"])
def test_tables_are_rebuilt_to_the_last_digit(name: str, finished: Path) -> None:
    tables = [pd.read_csv(folder / name, dtype=str, keep_default_na=False) for folder in (finished, FINISHED)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("name", ["top_configurations.md", "top_configurations.tex"])
def test_the_best_configurations_are_rebuilt_to_the_last_digit(name: str, finished: Path) -> None:
    assert (finished / name).read_text() == (FINISHED / name).read_text()


def test_the_summary_is_rebuilt_to_the_last_digit(finished: Path) -> None:
    now, before = (json.loads((folder / "summary.json").read_text()) for folder in (finished, FINISHED))
    assert {key: now[key] for key in before} == before


def test_the_best_model_is_rebuilt_and_gives_a_network(finished: Path) -> None:
    networks = [models.load(folder / "best_model.pt") for folder in (finished, FINISHED)]
    weights = [network.state_dict() for network in networks]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_the_report_names_the_winner_and_the_version_that_found_it(finished: Path) -> None:
    page = search_page.write(SearchResult(finished)).read_text()
    assert "trial 1" in page.lower()
    assert "tune-cure 0.1.0" in page


@pytest.fixture(scope="module")
def confirmed(finished: Path) -> Path:
    """The same search with the tables and the page of its confirmation, made anew."""
    result = SearchResult(finished)
    candidates = choose_candidates(result, 1, ["start_from", "fgsm"])
    plan = Plan(seeds=(1, 2), epsilons=(0.15,), examples=40, train_images=200, autoattack=True)
    jobs = plan_jobs(result, candidates, plan)  # refuses runs that were trained with other settings
    assert len(jobs) == 6 and all(job.is_judged for job in jobs)
    confirmation_page.write(result, jobs, finished / "confirm")
    return finished


def test_the_confirmation_is_rebuilt_to_the_last_digit(confirmed: Path) -> None:
    folder = confirmed / "confirm"
    table, reference = (
        pd.read_csv(path / "confirm.csv", dtype=str, keep_default_na=False) for path in (folder, FINISHED / "confirm")
    )
    order = ["contender", "seed"]
    pd.testing.assert_frame_equal(
        table.sort_values(order, ignore_index=True)[reference.columns], reference.sort_values(order, ignore_index=True)
    )
    summaries = [json.loads((path / "confirm.json").read_text()) for path in (folder, FINISHED / "confirm")]
    # Version 0.1.0 judged each pair by its own seeds; now all candidates say how much seeds differ.
    by_rule = ("low", "high", "p_value", "p_value_holm")
    intervals = [[row.pop(key) for key in by_rule] for summary in summaries for row in summary["comparisons"]]
    assert all(low <= high and 0 <= p_value <= p_value_holm <= 1 for low, high, p_value, p_value_holm in intervals)
    numbers_of_seeds = {row.pop(f"{attack}_seeds") for row in summaries[0]["means"] for attack in ATTACKS}
    assert numbers_of_seeds <= {0, 2}
    assert summaries[0] == summaries[1] | {"winner": "trial-1"}
    assert "trial-1" in (folder / "confirm.html").read_text()


def test_a_confirmation_of_version_0_1_0_goes_on_with_the_new_baselines(finished: Path) -> None:
    result = SearchResult(finished)
    candidates = choose_candidates(result, 1, DEFAULT_BASELINES)
    plan = Plan(seeds=(1, 2), epsilons=(0.15,), examples=40, train_images=200, autoattack=True)
    done = {(job.candidate.name, job.seed): job.is_done for job in plan_jobs(result, candidates, plan)}
    assert [name for name, seed in done if seed == 1] == ["trial-1", "start_from", "ablation", "fgsm", "pgd"]
    assert {name for (name, _), is_done in done.items() if is_done} == {"trial-1", "start_from", "fgsm"}
    (sentence,) = explain_baselines(result, candidates, DEFAULT_BASELINES)
    assert sentence.startswith("fgsm goes on with epsilon 0.05 (12.8/255) in training, as an earlier version began it")


def test_the_report_takes_in_a_confirmation_of_version_0_1_0(confirmed: Path) -> None:
    page = search_page.write(SearchResult(confirmed)).read_text()
    assert "Confirmed on the test set" in page
    assert "AutoAttack accuracy of trial 1 on 40 test images" in page
    assert "The test set is still untouched" not in page
    assert "Whether CURE helped is not known: no run without it has been judged." in page
