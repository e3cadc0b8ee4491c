import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.journal_lines import begin, epoch
from tests.support.spaces import tiny
from tune_cure.cli.views.live_view import LiveView, PlainView
from tune_cure.search import ranking, results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.progress import SearchState


@pytest.fixture
def state(tmp_path: Path) -> SearchState:
    return SearchState(tiny(tmp_path), started=0.0)


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    """Trial 0 of start_from runs; trial 1 was best at epoch 1, then stopped; trial 2 overfitted after a lucky start."""
    journal = Journal(tmp_path)
    for number, origin in ((0, "start_from"), (1, "sampler"), (2, "sampler")):
        begin(journal, number, origin=origin)
    for number, at, clean, pgd, best in (
        (0, 1, 0.6, 0.2, 0.2),
        (1, 1, 0.7, 0.4, 0.4),
        (1, 2, 0.9, 0.3, 0.4),
        (2, 1, 0.8, 0.6, 0.6),
        (2, 2, 0.8, 0.0, 0.6),
    ):
        accuracies = {"clean_accuracy": clean, "pgd_accuracy": pgd, "pgd_accuracy_best": best, "objective": best}
        epoch(journal, number, epoch=at, **accuracies, pid=1000 + number)
    journal.append("end", 1, status="stopped", reason="")
    journal.append("end", 2, status="catastrophic_overfitting", reason="")
    return journal.read()


def test_the_best_so_far_is_not_one_that_overfitted(state: SearchState, events: list[Event]) -> None:
    for event in events:
        state.update(event)
    assert state.best is not None
    assert state.best.number == 1
    assert state.baseline is not None
    assert state.baseline.number == 0
    assert [trial.number for trial in state.running] == [0]


def test_plain_lines_pair_the_best_pgd_accuracy_with_the_clean_accuracy_of_its_epoch(
    state: SearchState, events: list[Event]
) -> None:
    lines: list[str] = []
    with PlainView(state, lines.append) as view:
        for event in events:
            view.on_event(event)
    assert len(lines) == 2
    assert lines[0].startswith("[1/8] trial 1 stopped early after epoch 2: PGD 40.0%, clean 70.0%")
    assert "overfitted catastrophically" in lines[1]
    assert lines[1].endswith("best so far: trial 1, PGD 40.0%")


def test_a_leader_that_was_judged_again_is_a_line_with_the_attack(state: SearchState, events: list[Event]) -> None:
    lines: list[str] = []
    view = PlainView(state, lines.append)
    again = {"pgd_accuracy": 0.35, "pgd_accuracy_se": 0.02, "clean_accuracy": 0.7, "examples": 1000}
    for event in [*events, {"event": "leader", "trial": 1, "time": 0.0, "epoch": 1, **again}]:
        view.on_event(event)
    assert lines[-1] == (
        "trial 1 judged again: 35.0 ± 2.0% by PGD-50 with 10 starts at epsilon 0.05 (12.8/255) on 1,000 fresh "
        "validation images"
    )


def test_the_live_view_shows_running_trials_the_best_the_baseline_and_the_time_left(
    state: SearchState, events: list[Event]
) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    view = LiveView(state, console)
    for event in events:
        view.on_event(event)
    console.print(view.render())
    assert isinstance(console.file, io.StringIO)
    screen = console.file.getvalue()
    for said in ("2 of 8", "5 of at most 32", "left", "best so far", "trial 1", "start_from", "PGD 40.0%"):
        assert said in screen
    for said in ("lambda", "pid", "1000"):
        assert said in screen


def test_time_left_is_unknown_before_the_first_epoch_and_then_shrinks(state: SearchState, events: list[Event]) -> None:
    assert state.seconds_left(10.0) is None
    left = []
    for event in events:
        state.update(event)
        if state.epochs_now:
            left.append((state.seconds_left(10.0) or 0.0) / 10.0 * state.epochs_now)  # in epochs
    assert left[-1] < left[0]


def test_of_equals_in_the_first_metric_the_second_decides_as_in_the_tables(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "search.metric=[pgd_accuracy_best, clean_accuracy]"), Journal(tmp_path)
    state = SearchState(spec, started=0.0)
    for number, clean in enumerate((0.6, 0.7)):
        begin(journal, number)
        accuracies = {"clean_accuracy": clean, "pgd_accuracy": 0.3, "pgd_accuracy_best": 0.3, "objective": 0.3}
        epoch(journal, number, epoch=4, **accuracies)
        journal.append("end", number, status="completed", reason="")
    for event in journal.read():
        state.update(event)
    assert state.best is not None
    assert state.best.number == 1 == ranking.rank_trials(results.trials(tmp_path), spec).iloc[0]["trial"]
