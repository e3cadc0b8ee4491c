"""What a search prints when it ends."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.journals import BEST, VALUES, epoch, write_clean_search, write_search
from tests.support.spaces import tiny
from tune_cure.cli.views.search_results import print_results
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load


def printed(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed at the end of the search in a folder, in one line."""
    print_results(SearchResult(directory), directory / "report.html", Console(width=400))
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("width", [60, 100])
def test_no_number_of_the_closing_table_is_cut_off_whatever_the_width(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_search(tmp_path)
    result = SearchResult(tmp_path)
    print_results(result, tmp_path / "report.html", Console(width=width, soft_wrap=True))
    out = capsys.readouterr().out
    assert out.endswith(f"tune-cure confirm {tmp_path}\n")
    assert "…" not in out
    assert f"{100 * result.leaders['pgd_accuracy_best'].iloc[0]:.1f}" in out
    assert all(key in out for key in result.spec.space)
    assert (f"\ntrial {BEST}: lambda " in out) == (width == 60)


def test_the_end_of_a_search_says_that_no_trial_is_clearly_above_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_search(tmp_path)
    for level, is_said in ((0.1, False), (0.95, True)):
        (tmp_path / run_files.ENVIRONMENT).write_text(json.dumps({"command": "x", "chance_level": level}))
        out = printed(tmp_path, capsys)
        assert ("No trial is clearly above chance. One fixed answer is right on 95.0%" in out) == is_said
        assert (f"tune-cure confirm {tmp_path}" in out) != is_said
        assert ("change the space, for one of the likely reasons above" in out) == is_said


def write_failed_search(directory: Path, *, judged: bool) -> None:
    """Two trials that failed, before or after their first judged epoch."""
    tiny(directory, "search.trials=2")
    journal = Journal(directory)
    for number in range(2):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        if judged:
            epoch(journal, number, 1, 0.4, 0.4)
        journal.append("end", number, status="failed", reason="RuntimeError: broken")


@pytest.mark.parametrize("judged", [False, True])
def test_a_search_whose_trials_all_failed_points_to_the_failures_and_not_to_confirm(
    judged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failed_search(tmp_path, judged=judged)
    out = printed(tmp_path, capsys)
    assert ("no winner: of 2 trials, none was judged" in out) != judged
    assert ("the best of 2 trials" in out) == ("epoch lambda" in out) == judged
    assert f"nothing to confirm; {tmp_path / 'trials.csv'} has the status and the reason of each" in out
    assert "tune-cure confirm" not in out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("search.metric=pgd_accuracy_best", None),
        ("search.metric=clean_accuracy", "ranked by clean_accuracy"),
        ("search.mode=min", "ranked by pgd_accuracy_best, less is better"),
        ("search.metric=[fgsm_accuracy, pgd_accuracy]", "ranked by fgsm_accuracy; Pareto front of fgsm_accuracy and"),
    ],
)
def test_another_ranking_than_by_the_best_pgd_accuracy_is_named(
    change: str, line: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_search(tmp_path)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", [change]).to_yaml())
    out = printed(tmp_path, capsys)
    assert line in out if line else "ranked by" not in out
    assert ("trial objective PGD" in out) == ("metric" in change and "pgd_accuracy_best" not in change)


def test_the_closing_table_has_the_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clean_search(tmp_path)
    out = printed(tmp_path, capsys)
    assert "trial objective PGD ± clean epoch" in out
    assert " 0 90.0 10.0 3.0 90.0 1 " in out
    assert "ranked by clean_accuracy" in out
