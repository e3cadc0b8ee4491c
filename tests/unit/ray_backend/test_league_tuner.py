from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.leagues import write_league
from tune_cure.ray_backend.league import tuner
from tune_cure.ray_backend.tuner import RunOptions
from tune_cure.search import run_files


class Call:
    """A guarded call without Ray, which nothing guards."""

    def __init__(self, work: Callable[[], None], *_: object) -> None:
        self.run = work


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "plan_devices", lambda *_, **__: None)
    monkeypatch.setattr(tuner.session, "dashboard_url", str)
    monkeypatch.setattr(tuner, "TrialGauges", lambda name: Gauges())
    monkeypatch.setattr(tuner, "GuardedCall", Call)
    monkeypatch.setattr(tuner, "_run_trials", None)  # an error if it is called


@pytest.mark.usefixtures("_without_ray")
def test_a_resumed_league_does_not_search_a_method_again_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []
    monkeypatch.setattr(tuner.rescoring, "run", lambda leaders, *_: judged.append(len(leaders)))
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, failing=["fgsm"])
    running = tuner._Session(league, league.spec("cure").data, RunOptions(), tuner.Listeners())
    tuner._run_on_ray(running, league.compose())
    assert [search.stopper.outcome for search in running.searches.values()] == ["", "failing"]
    assert judged == [1]


@pytest.mark.usefixtures("_without_ray")
def test_a_time_budget_pauses_no_search_of_a_league_that_was_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, failing=["fgsm"])
    running = tuner._Session(league, league.spec("cure").data, RunOptions(), tuner.Listeners())
    monkeypatch.setattr(tuner.rescoring, "run", lambda *_: running.stopper.end("time", "the time is used up"))
    tuner._run_on_ray(running, league.compose())
    assert running.stopper.outcome == "time"
    for search in running.searches.values():
        assert [event["event"] for event in search.journal.load().search_events if event["event"] == "pause"] == []


@pytest.mark.usefixtures("_without_ray")
def test_a_time_budget_pauses_the_searches_of_a_league_that_have_more_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    league = write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"})
    journal = league.run_folder("cure") / run_files.JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))  # its last trial has not ended
    running = tuner._Session(league, league.spec("cure").data, RunOptions(), tuner.Listeners())
    monkeypatch.setattr(tuner, "_run_trials", lambda *_: running.stopper.end("time", "the time is used up"))
    tuner._run_on_ray(running, league.compose())
    pauses = {
        name: [event["reason"] for event in search.journal.load().search_events if event["event"] == "pause"]
        for name, search in running.searches.items()
    }
    assert pauses == {"cure": ["the time is used up"], "fgsm": []}


class Gauges:
    """Gauges of trials that show nothing."""

    def on_event(self, event: object) -> None: ...
