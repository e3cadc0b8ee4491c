"""Leagues in Python: the searches are scripted, and the networks of their confirmation are drawn."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tune_cure
from tests.support.fake_backend import Script
from tests.support.fake_league import FakeLeague
from tests.support.leagues import draw_outcomes, finish_job
from tests.support.spaces import TINY
from tune_cure.cli.steps import league_api, league_run
from tune_cure.confirmation.plan import Job
from tune_cure.league.cost import EpochCost
from tune_cure.league.folder import League
from tune_cure.ray_backend import confirmation
from tune_cure.ray_backend.league import tuner
from tune_cure.search.results import SearchResult
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.yaml_parser import parse

ACCURACIES = {"cure": 0.6, "fgsm_rs": 0.4}
USUAL = Script([0.2, 0.3, 0.4])
SCRIPTS: dict[str, Script] = {}
"""What the trials of methods do that are not as usual."""
SETTINGS = {"examples": 100, "seeds": 2, "trials": 3, "budget_by": "epochs", "quiet": True}


@pytest.fixture
def space() -> dict[str, Any]:
    return {**parse(TINY), "rescore": {"top": 0}}


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Searches and jobs run without Ray; returns what is run, as it is run."""
    ran = []

    def search(league: League, *_: object, **__: object) -> Mapping[str, SearchResult]:
        ran.append("searches")
        costs = dict.fromkeys(league.methods, EpochCost(train_seconds=1.0, eval_seconds=0.1))
        league.set_budget(league.compose(), costs)
        return FakeLeague(league.compose(), league.folder, lambda name, _: SCRIPTS.get(name, USUAL)).run()

    def judge(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        ran.append("jobs")
        names = dict.fromkeys(job.candidate.name for job in jobs)
        drawn = draw_outcomes({name: ACCURACIES.get(name, 0.3) for name in names}, seeds=2, images=100)
        for job in jobs:
            finish_job(job, drawn[job.candidate.name][job.plan.seeds.index(job.seed)])
        return {}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuner, "run", search)
    monkeypatch.setattr(confirmation, "run", judge)
    monkeypatch.setattr(league_run.artifacts, "write_artifacts", lambda result: None)  # reports take seconds
    return ran


def test_a_league_returns_its_table_its_verdicts_and_who_wins(space: dict[str, Any], searched: list[str]) -> None:
    found = tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS)
    assert isinstance(found, tune_cure.LeagueResult)
    assert (found.outcome, found.directory) == ("finished", Path("league"))
    assert found.table[["method", "seed"]].to_numpy().tolist() == [[n, s] for n in ("cure", "fgsm_rs") for s in (1, 2)]
    row = found.verdicts.iloc[0]
    assert (row["first"], row["second"], row["verdict"]) == ("cure", "fgsm_rs", "better")
    assert found.conclusions[0].startswith("cure wins: it has ")
    assert list(found.searches) == ["cure", "fgsm_rs"] and len(found.searches["cure"].trials) == 3
    assert found.page == Path("league/league.html") and found.page.is_file()
    written = pd.read_csv("league/league.csv")
    assert written["autoattack"].tolist() == found.table["autoattack"].tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"examples": 1}, "league: examples: "),
        ({"seeds": 0}, "league: seeds: "),
        ({"trials": 0}, "league: trials: "),
        ({"budget_by": "hours"}, "league: budget_by: "),
    ],
)
def test_a_number_that_no_league_can_have_is_refused_in_one_line(
    change: dict[str, Any], said: str, space: dict[str, Any], searched: list[str]
) -> None:
    with pytest.raises(TuneCureError) as caught:
        tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS | change)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert searched == [] and not Path("league").exists()


def test_a_league_shows_itself_in_a_notebook(
    space: dict[str, Any], searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(league_api, "pictures_of_confirmation", lambda _: "<img>")
    found = tune_cure.league(space, ["cure", "fgsm_rs"], output="league", searches_only=True, **SETTINGS)
    assert "no winner has been judged yet" in found._repr_html_()
    html = tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS)._repr_html_()
    assert html.startswith("<p><strong>cure wins: it has ") and "<img>" in html
    assert "<th>groups</th>" in html and "<td>better</td>" in html


def test_a_method_whose_trials_all_fail_is_warned_of_and_the_others_are_judged_once(
    space: dict[str, Any], searched: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Script([0.2], failures={1: ["broken"] * 9})
    monkeypatch.setitem(SCRIPTS, "fgsm_rs", broken)
    for _ in range(2):
        found = tune_cure.league(space, ["cure", "pgd", "fgsm_rs"], output="league", **SETTINGS)
        assert found.outcome == "finished" and found.conclusions[0].startswith("cure wins: ")
        assert set(found.table["method"]) == {"cure", "pgd"}
    assert searched == ["searches", "jobs"]
    assert sum("fgsm_rs: all of its 4 trials failed: broken; its search is" in it for it in caplog.messages) == 2


def test_a_cell_that_is_run_twice_runs_its_league_once(space: dict[str, Any], searched: list[str]) -> None:
    first, second = (tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS) for _ in range(2))
    assert searched == ["searches", "jobs"]
    pd.testing.assert_frame_equal(first.table, second.table)
    assert second.outcome == "finished"


def test_a_league_goes_on_with_its_confirmation_after_its_searches(space: dict[str, Any], searched: list[str]) -> None:
    found = tune_cure.league(space, ["cure", "fgsm_rs"], output="league", searches_only=True, **SETTINGS)
    assert (found.outcome, found.standings, found.page, found.conclusions) == ("searches_only", None, None, [])
    assert found.table.empty and found.verdicts.empty
    assert tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS).outcome == "finished"
    assert searched == ["searches", "jobs"]


def test_searches_that_were_interrupted_go_on_where_that_is_asked_for(
    space: dict[str, Any], searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuner.run
    monkeypatch.setattr(tuner, "run", lambda *_, **__: {})
    found = tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS)
    assert (found.outcome, searched) == ("interrupted", [])
    monkeypatch.setattr(tuner, "run", whole)
    with pytest.raises(tune_cure.TuneCureError, match="have not ended; resume=True continues them"):
        tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS)
    assert tune_cure.league(space, ["cure", "fgsm_rs"], output="league", resume=True, **SETTINGS).outcome == "finished"


def test_another_league_in_the_folder_is_refused(space: dict[str, Any], searched: list[str]) -> None:
    tune_cure.league(space, ["cure", "fgsm_rs"], output="league", searches_only=True, **SETTINGS)
    files = {path: path.read_bytes() for path in Path("league").rglob("*") if path.is_file()}
    for methods, settings, words in (
        (["cure", "pgd"], SETTINGS, "holds another league: .*methods.pgd was absent and is "),
        (["cure", "fgsm_rs"], SETTINGS | {"trials": 4}, "trials was 3 and is 4"),
        (["cure", "fgsm_rs"], SETTINGS | {"settings": {"training.epochs": 2}}, "training.epochs was 4 and is 2;"),
    ):
        with pytest.raises(tune_cure.TuneCureError, match=words) as caught:
            tune_cure.league(space, methods, output="league", **settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(tune_cure.TuneCureError, match="nowhere: holds no league to resume"):
        tune_cure.league(space, ["cure", "fgsm_rs"], output="nowhere", resume=True, **SETTINGS)
    assert {path: path.read_bytes() for path in Path("league").rglob("*") if path.is_file()} == files


def test_the_time_of_the_confirmation_is_said_before_it_starts(
    space: dict[str, Any], searched: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tune_cure")
    tune_cure.league(space, ["cure", "fgsm_rs"], output="league", **SETTINGS)
    assert any("here, if it goes as fast as the search did: " in line for line in caplog.messages)
