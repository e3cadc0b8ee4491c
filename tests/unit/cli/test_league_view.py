import io
from pathlib import Path

import pytest

from tests.support.journal_lines import begin, end, epoch
from tests.support.spaces import tiny
from tune_cure.cli.views import live_view
from tune_cure.cli.views.console import SafeConsole
from tune_cure.cli.views.league_view import LeagueState, LeagueView, PlainLeagueView
from tune_cure.search.journal import Event, Journal
from tune_cure.search.progress import SearchState


@pytest.fixture
def league(tmp_path: Path) -> LeagueState:
    league = LeagueState()
    spec = tiny(tmp_path, "search.budget_seconds=20", "search.trials=99")
    league.begin({name: SearchState(spec, started=0.0) for name in ("cure", "n_fgsm")})
    league.started = 0.0
    return league


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    """Trial 0 ended after two epochs of 3 seconds, trial 1 runs."""
    journal = Journal(tmp_path)
    begin(journal, 0)
    for number in (1, 2):
        accuracies = {"clean_accuracy": 0.8, "pgd_accuracy": 0.2 * number, "pgd_accuracy_best": 0.2 * number}
        epoch(journal, 0, epoch=number, **accuracies, objective=0.2 * number, train_seconds=3.0)
    journal.append("end", 0, status="stopped", reason="the search's budget is spent")
    begin(journal, 1)
    return journal.read()


def drawn(league: LeagueState, width: int, height: int = 30) -> list[str]:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    view = LeagueView(league, console)
    console.print(view.picture)
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_picture_has_a_row_for_each_method_and_fits_the_terminal(
    league: LeagueState, events: list[Event], width: int
) -> None:
    for event in events:
        league.searches["n_fgsm"].update(event)
    lines = drawn(league, width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("15% of all budgets, ")
    cells = {line.split()[0]: [word for word in line.split() if "━" not in word] for line in lines if line}
    assert cells["n_fgsm"] == ["n_fgsm", "30%", "1", "1", "40.0%", "80.0%", "0"]
    assert cells["cure"] == ["cure", "0%", "0", "–", "–", "–", "–"]


def test_a_low_terminal_says_how_many_methods_it_does_not_show(league: LeagueState) -> None:
    league.begin({f"method{number}": state for number, state in enumerate([*league.searches.values()] * 5)})
    lines = drawn(league, 80, height=10)
    assert "and 6 more methods" in lines
    assert len(lines) <= 10


def test_the_picture_says_what_is_done_before_the_first_trial_and_after_the_last(
    league: LeagueState, events: list[Event], tmp_path: Path
) -> None:
    assert "measuring what an epoch of each method takes" in drawn(LeagueState(), 80)
    (tmp_path / "small").mkdir()
    spec = tiny(tmp_path / "small", "search.budget_seconds=6", "search.trials=99")
    league.begin({"cure": SearchState(spec)})
    for event in events[:4]:
        league.searches["cure"].update(event)
    assert "all searches are over" in " ".join(drawn(league, 80))


def test_the_time_left_follows_the_pace_of_all_budgets(league: LeagueState, events: list[Event]) -> None:
    assert league.seconds_left(10.0) is None
    for event in events:
        league.searches["cure"].update(event)
    assert league.share == pytest.approx(0.15)
    assert league.seconds_left(15.0) == pytest.approx(85.0)


def test_lines_name_the_method_and_the_best_of_all_is_known(league: LeagueState, events: list[Event]) -> None:
    lines: list[str] = []
    assert league.describe_best() == ""
    with PlainLeagueView(league, lines.append) as view:
        for event in events:
            view.on_event("cure", event)
    (line,) = lines
    assert line.startswith("cure: [30%] trial 0 stopped early after epoch 2: PGD 40.0%, clean 80.0%")
    assert "the search's budget is spent; best so far: trial 0" in line
    assert league.describe_best() == "best so far: cure, trial 0, PGD 40.0%"


def test_a_failure_is_printed_above_the_picture_with_its_method(league: LeagueState, events: list[Event]) -> None:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    view = LeagueView(league, console)
    view.on_event("cure", events[0])
    view.on_event("cure", {"event": "end", "trial": 0, "time": 1.0, "status": "failed", "reason": "broken"})
    assert view.lines == ["cure: trial 0 failed: broken"]


@pytest.mark.parametrize("is_redrawn", [False, True])
def test_each_method_warns_once_of_a_rung_that_is_no_better_than_chance(
    is_redrawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_view, "describe_warning", lambda spec, rung: "no better" * (rung.epoch == 1))
    league, spec = LeagueState(), tiny(tmp_path, "asha.control=0.25")
    journal = Journal(tmp_path)
    for number in (0, 1):
        begin(journal, number)
        epoch(journal, number, clean_accuracy=0.8, pgd_accuracy=0.2, pgd_accuracy_best=0.2)
        end(journal, number)
    lines: list[str] = []
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    view = LeagueView(league, console) if is_redrawn else PlainLeagueView(league, lines.append)
    league.begin({name: SearchState(spec) for name in ("cure", "n_fgsm")})
    for name in league.searches:
        for event in journal.read():
            view.on_event(name, event)
    said = view.lines if isinstance(view, LeagueView) else lines
    assert [line for line in said if "no better" in line] == ["cure: no better", "n_fgsm: no better"]
