import io
from pathlib import Path

import pytest
from rich.console import Console, ConsoleDimensions

from tests.support.journal_lines import begin, epoch
from tests.support.spaces import tiny
from tune_cure.cli.views.console import SafeConsole
from tune_cure.cli.views.live_picture import fit_columns
from tune_cure.cli.views.live_view import CLEAR, LiveView, PlainView
from tune_cure.search import ranking, results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.progress import SearchState
from tune_cure.search.space.loading import load


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
        "trial 1 judged again: 35.0 ± 2.0% by PGD-20 with 10 starts at epsilon 0.05 (12.8/255) on 1,000 fresh "
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


class Terminal(io.StringIO):
    """A terminal of a size that can change, and what was written to it."""

    def __init__(self, width: int, height: int = 40) -> None:
        super().__init__()
        self.width = width
        terminal = self

        class Resized(SafeConsole):
            @property
            def size(self) -> ConsoleDimensions:
                return ConsoleDimensions(terminal.width, height)

            @property
            def width(self) -> int:
                return terminal.width

        self.console = Resized(file=self, force_terminal=True, color_system=None, soft_wrap=True, highlight=False)


def many(tmp_path: Path) -> SearchState:
    """A search of thirteen hyperparameters, six trials of which run."""
    fixed = ["data.dataset=digits", "data.validation=100", "model=small_cnn", "start_from=[]"]
    spec = load("search_spaces/cure_full.yaml", fixed)
    space = {key: value for key, value in spec.space.items() if key != "noise"}
    assert len(space) == 13
    state = SearchState(spec.model_copy(update={"space": space}), started=0.0)
    values = {key: where.values[-1] for key, where in space.items()}
    journal = Journal(tmp_path)
    for number in range(6):
        begin(journal, number, **{**values, "lambda": 0.00012345, "weight_decay": 1.2345e-05})
        accuracies = {"clean_accuracy": 1.0, "pgd_accuracy": 0.5432, "pgd_accuracy_best": 0.6, "objective": 0.6}
        epoch(journal, number, epoch=12, **accuracies, pid=4194300)
    for event in journal.read():
        state.update(event)
    return state


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("number", [4, 13])
def test_at_any_width_the_accuracies_are_shown_no_line_is_too_long_and_no_word_is_cut(
    width: int, number: int, state: SearchState, events: list[Event], tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    if number == 13:
        state = many(tmp_path / "many")
    else:
        for event in events:
            state.update(event)

    def draw(columns: int) -> str:
        terminal = Terminal(columns)
        terminal.console.print(LiveView(state, terminal.console).render())
        return terminal.getvalue()

    lines = draw(width).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    header = next(line for line in lines if "epoch " in line and "PGD" in line)
    assert header.split()[:5] == ["trial", "epoch", "PGD", "best", "clean"]
    first = lines[lines.index(header) + 1].split()
    assert first[:5] == (
        ["0", "12", "54.3%", "60.0%", "100.0%"] if number == 13 else ["0", "1", "20.0%", "20.0%", "60.0%"]
    )
    notes = ("trials", "epochs", " so far, about ", "wider terminal")  # bars, the time, and which columns are left out
    words = {
        word for line in lines[lines.index("") :] if not any(note in line for note in notes) for word in line.split()
    }
    assert words <= {*draw(400).split(), "and", *(key + "," * comma for key in state.spec.space for comma in (0, 1))}
    shown, has_pid = fit_columns(state.spec, width)
    hidden = [key for key in state.spec.space if key not in shown]
    assert ("a wider terminal also shows" in "".join(lines)) == bool(hidden)
    assert header.split()[5:] == [*shown, *["pid"] * has_pid]


def test_more_running_trials_than_the_terminal_has_rows_are_counted(tmp_path: Path) -> None:
    terminal = Terminal(120, height=17)
    state = many(tmp_path)
    terminal.console.print(LiveView(state, terminal.console).render())
    assert len(terminal.getvalue().splitlines()) <= 17
    assert "and 2 more trials" in terminal.getvalue()


@pytest.mark.parametrize(("before", "after"), [(140, 80), (80, 140)])
def test_a_terminal_that_changes_its_width_is_cleared_and_keeps_what_was_said(
    before: int, after: int, tmp_path: Path
) -> None:
    terminal = Terminal(before)
    view = LiveView(many(tmp_path), terminal.console, ["results in results/tiny"])
    view.live.auto_refresh = False
    with view:
        view.say("Ray dashboard: http://127.0.0.1:8265")
        view.live.refresh()
        assert CLEAR not in terminal.getvalue()
        terminal.width = after
        view.live.refresh()
        screen = terminal.getvalue().rpartition(CLEAR)[2]
        assert screen.startswith("results in results/tiny\nRay dashboard: http://127.0.0.1:8265\n")
        assert "54.3%" in screen
        assert terminal.getvalue().count(CLEAR) == 1
        view.live.refresh()
        assert terminal.getvalue().count(CLEAR) == 1


def test_why_no_trial_runs_is_said_at_the_begin_between_trials_and_at_the_end(tmp_path: Path) -> None:
    state = SearchState(tiny(tmp_path, "search.trials=1"), started=0.0)

    def drawn() -> str:
        terminal = Terminal(100)
        terminal.console.print(LiveView(state, terminal.console).render())
        return terminal.getvalue()

    assert "waiting for the first trial" in drawn()
    journal = Journal(tmp_path)
    begin(journal, 0)
    journal.append("end", 0, status="failed", reason="")
    for event in journal.read():
        state.update(event)
    assert "all trials have ended; the leaders are judged again, then tables and report are written" in drawn()
    state.spec = tiny(tmp_path, "search.trials=2")
    assert "waiting for the next trial" in drawn()
    state.spec = tiny(tmp_path, "search.trials=1", "rescore.top=0")
    assert "all trials have ended; now tables and report are written" in drawn()
