"""Whole searches with a control group on the fake backend: what tables, summary, views and report say of the rungs."""

import json
import random
import re
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from tests.support.fake_backend import FakeBackend, KilledError, Script, run_scripted, scripted
from tests.support.sampler_studies import make_proposer
from tests.support.spaces import tiny
from tune_cure.cli.main import main
from tune_cure.cli.views.live_view import LiveView, PlainView
from tune_cure.cli.views.search_results import print_results
from tune_cure.reports import search_page, tables
from tune_cure.search import results, run_files
from tune_cure.search.journal import Event, Journal
from tune_cure.search.progress import SearchState
from tune_cure.search.proposals.outcome import STATUS
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.control_group import ControlGroup, is_control

SETTINGS = ("search.trials=40", "search.sampler=random", "asha.control=0.4")
WARNING = "rung 1 is no better than chance at telling which trials end well"


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def misleading(proposal: Proposal) -> Script:
    """A trial that begins low and ends high, or the reverse; half of the ranks after two epochs are final."""
    level = 0.01 * (7 * proposal.number % 40)
    return Script([0.1 + 0.5 * level, 0.2 + 0.5 * level, 0.6, 0.9 - 0.5 * level])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert run_scripted(tiny(folder, *SETTINGS), folder, misleading)[0].finished
    return folder


def control_group(run: Path) -> ControlGroup:
    group = SearchResult(run).control_group
    assert group is not None
    return group


def test_members_train_to_their_end_and_the_table_names_them(run: Path) -> None:
    trials, spec = results.trials(run), results.read_spec(run)
    assert trials["control"].tolist() == [is_control(spec, number) for number in range(40)]
    assert 5 < trials["control"].sum() < 30
    assert set(trials.loc[trials["control"], "status"]) == {"completed"}
    assert "stopped" in set(trials["status"])


def test_the_summary_says_how_well_each_rung_predicted_the_end_and_what_stopping_may_have_cost(run: Path) -> None:
    tables.write_tables(SearchResult(run))
    content = json.loads((run / "summary.json").read_text())["early_stopping"]
    assert [rung["epoch"] for rung in content["rungs"]] == [1, 2]
    assert content["rungs"][0]["verdict"] == "no better than chance"
    assert content["rungs"][0]["rank_correlation"]["high"] < 0
    assert content["trials_spared"] > 0
    assert content["epochs_of_spared"] > content["trials_spared"]
    assert content["winner_stopped"]["value"] > 0.3


def test_a_search_without_a_control_group_says_nothing_of_its_rungs(tmp_path: Path) -> None:
    run_scripted(tiny(tmp_path, "search.trials=4"), tmp_path, misleading)
    assert SearchResult(tmp_path).summary["early_stopping"] is None
    assert "control" not in results.trials(tmp_path)


def test_a_search_that_was_killed_and_resumed_stops_and_says_the_same(run: Path, tmp_path: Path) -> None:
    num_events, columns = len(Journal(run).read()), ["trial", "status", "epochs_trained", "control"]
    for share in (0.2, 0.5, 0.8):
        folder, seen = tmp_path / str(share), list[Event]()
        folder.mkdir()
        spec = tiny(folder, *SETTINGS)

        def is_last(event: Event, seen: list[Event] = seen, share: float = share) -> bool:
            seen.append(event)
            return len(seen) == int(share * num_events)

        with pytest.raises(KilledError):
            run_scripted(spec, folder, misleading, kill_at=is_last)
        result, _ = run_scripted(spec, folder, misleading, resume=True)
        assert result.trials[columns].equals(results.trials(run)[columns])
        assert result.summary["early_stopping"] == SearchResult(run).summary["early_stopping"]


def test_the_views_follow_the_rungs_and_warn_once(run: Path) -> None:
    spec = results.read_spec(run)
    plain, live = SearchState(spec, started=0.0), SearchState(spec, started=0.0)
    lines: list[str] = []
    console = Console(width=120, record=True, force_terminal=True, color_system=None, file=(run / "screen").open("w"))
    view, picture = PlainView(plain, lines.append), LiveView(live, console)
    for event in Journal(run).read():
        view.on_event(event)
        picture.on_event(event)
    assert [line for line in lines if line.startswith(WARNING)] == [
        f"{WARNING}; in the next search, asha.adapt: true lets a rung stop nobody until it is better"
    ]
    assert plain.rungs == live.rungs == control_group(run).rungs
    console.print(picture.render())
    assert console.export_text().count(WARNING) == 1


def test_the_lines_of_a_log_say_what_stopping_saved_and_cost_when_more_of_it_is_known(run: Path) -> None:
    lines: list[str] = []
    view = PlainView(SearchState(results.read_spec(run), started=0.0), lines.append)
    for event in Journal(run).read():
        view.on_event(event)
    said = [place for place, line in enumerate(lines) if line.startswith("early stopping saved")]
    verdict, chance = (lines[place : place + 3] for place in said)
    assert "whether stopping ended the winner is not known" in verdict[0]
    assert [line.rpartition("; ")[2] for line in verdict[1:]] == ["no better than chance"] * 2
    assert re.search(r"saved \d+ epochs; chance that stopping ended .* would have won: \d\d% \(95%", chance[0])


@pytest.mark.parametrize(
    ("width", "height", "shown"), [(120, 40, [0, 1, 2]), (80, 24, [0, 1, 2]), (80, 20, [0]), (80, 16, [])]
)
def test_the_picture_says_what_stopping_saved_and_cost_as_far_as_the_terminal_has_room(
    width: int, height: int, shown: list[int], run: Path
) -> None:
    state = SearchState(results.read_spec(run), started=0.0)
    for event in Journal(run).read()[:-7]:  # a trial runs
        state.update(event)
    with (run / "screen").open("w") as file:
        console = Console(width=width, height=height, record=True, force_terminal=True, color_system=None, file=file)
        console.print(LiveView(state, console).render())
    screen = console.export_text()
    lines = state.describe_stopping()
    assert len(state.running) == 1
    assert [place for place, line in enumerate(lines) if line in " ".join(screen.split())] == shown
    assert len(screen.splitlines()) <= height


def test_watch_ends_with_what_stopping_saved_and_cost(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(run)]) == 0
    printed, result = " ".join(capsys.readouterr().out.split()), SearchResult(run)
    saved = result.summary["epochs_without_early_stopping"] - result.summary["epochs"]
    group = control_group(run)
    said = [f"early stopping saved {saved} epochs; {group.describe_winner()}", *map(str, group.rungs)]
    assert saved > 10
    assert f"{' '.join(said)} all 40 trials have ended; " in printed


def test_the_end_of_a_budget_saves_no_epochs(tmp_path: Path) -> None:
    spec = tiny(tmp_path, *SETTINGS, "search.budget_epochs=37")
    run_scripted(spec, tmp_path, misleading)
    state = SearchState(spec)
    for event in Journal(tmp_path).read():
        state.update(event)
    summary = SearchResult(tmp_path).summary
    assert summary["epochs_not_trained"]["budget"] > 0
    assert state.epochs_saved == summary["epochs_without_early_stopping"] - summary["epochs"] > 0


def test_the_terminal_and_the_report_say_it_in_words(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(SearchResult(run), None, Console(width=200))
    printed = capsys.readouterr().out
    assert re.search(
        r"rung 1: rank correlation with the end −\d\.\d\d \(95% interval .*\); no better than chance", printed
    )
    assert WARNING in printed
    assert re.search(r"chance that stopping ended the trial that would have won: \d+% \(95% interval", printed)
    page = search_page.write(SearchResult(run)).read_text(encoding="utf-8")
    section = page[page.index("How well early ranks predicted the end</h2>") :]
    assert "no better than chance" in section
    assert "that a rung would have stopped took" in section
    assert (run / run_files.REPORT).exists()


def overfitting(proposal: Proposal) -> Script:
    """A trial of random accuracies, half of which are overfitted after the second epoch."""
    draw = random.Random(proposal.number)
    is_overfitted = draw.random() < 0.5
    accuracies = [0.3 + 0.3 * draw.random(), 0.1 if is_overfitted else 0.5, 0.5, 0.2 + 0.5 * draw.random()]
    return Script(accuracies, overfitted=(2,) if is_overfitted else ())


def test_a_trial_that_a_rung_stops_while_it_is_overfitted_counts_alike_live_and_recorded(tmp_path: Path) -> None:
    settings = [*SETTINGS, "search.on_collapse=continue", "search.metric=pgd_accuracy", "start_from=[]"]
    spec = tiny(tmp_path, *settings)
    backend = FakeBackend(spec, tmp_path, scripted(spec, overfitting))
    result = backend.run()
    cut = result.trials["status"].eq("catastrophic_overfitting") & result.trials["epochs_trained"].eq(2)
    assert cut.sum() > 3
    again = make_proposer(spec, tmp_path).study.trials
    assert [trial.user_attrs[STATUS] for trial in backend.study.trials] == [trial.user_attrs[STATUS] for trial in again]
    assert result.control_group is not None
    assert result.control_group.summarize() == backend.early_stopper.group.summarize()
