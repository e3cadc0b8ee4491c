from pathlib import Path

import pandas as pd
import pytest

from tests.support.journals import write_search
from tune_cure.reports.figures import cost
from tune_cure.search.budget import SPENT
from tune_cure.search.results import SearchResult


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    write_search(tmp_path)
    return SearchResult(tmp_path)


def test_the_area_below_the_line_is_the_number_of_epochs_trained(result: SearchResult) -> None:
    trained, most = cost.plot_survival(result.trials, result.spec).data
    widths = [b - a for a, b in zip(trained.x, trained.x[1:], strict=False)]
    area = sum(width * height for width, height in zip(widths, trained.y, strict=False))
    assert area == result.trials["epochs_trained"].sum()
    stopped = result.trials[result.trials["status"] == "stopped"]
    saved = 12 * len(stopped) - stopped["epochs_trained"].sum()
    assert sum(width * height for width, height in zip(widths, most.y, strict=False)) == area + saved
    assert most.x == trained.x


def test_a_trial_that_the_budget_ended_was_not_saved_by_early_stopping(result: SearchResult) -> None:
    spent = result.trials.assign(reason=result.trials["reason"].mask(result.trials["status"].eq("stopped"), SPENT))
    trained, most = cost.plot_survival(spent, result.spec).data
    assert most.y == trained.y


def epoch(trial: int, number: int, end: float, host: str = "a", pid: int = 1) -> dict[str, object]:
    row = {"trial": trial, "epoch": number, "time": end, "train_seconds": 8.0, "eval_seconds": 2.0}
    return {**row, "host": host, "pid": pid}


def test_a_stretch_covers_one_trial_in_one_process_and_begins_before_its_first_epoch() -> None:
    epochs = pd.DataFrame([epoch(0, 1, 10.0), epoch(0, 2, 20.0), epoch(0, 3, 50.0, pid=2), epoch(1, 1, 30.0)])
    spans = cost.find_stretches(epochs).set_index(["trial", "pid"])
    assert spans.loc[(0, 1), ["begin", "end"]].tolist() == [0.0, 20.0]
    assert spans.loc[(0, 2), ["begin", "end"]].tolist() == [40.0, 50.0]
    assert spans["row"].nunique() == 1  # one after the other


def test_stretches_that_overlap_or_ran_on_another_machine_have_different_rows() -> None:
    epochs = pd.DataFrame([epoch(0, 1, 10.0), epoch(1, 1, 12.0, pid=2), epoch(2, 1, 10.0, host="b"), epoch(3, 1, 20.0)])
    rows = cost.find_stretches(epochs).set_index("trial")["row"]
    assert rows[0] != rows[1]
    assert rows[2] not in (rows[0], rows[1])
    assert rows[3] == rows[0]


def test_the_timeline_names_machines_and_colors_by_end(result: SearchResult) -> None:
    figure = cost.plot_timeline(result.trials, result.epochs)
    judged = result.trials[result.trials["epochs_trained"] > 0]
    assert {trace.name for trace in figure.data} >= {"ran to the end", "stopped early"}
    assert sum(list(trace.x).count(None) for trace in figure.data) == len(judged)
    assert figure.layout.yaxis.ticktext[0] == "here 0"
    assert min(x for trace in figure.data for x in trace.x if x is not None) == 0


def test_a_timeline_is_drawn_for_several_machines_or_idle_workers_alone() -> None:
    busy = pd.DataFrame([epoch(trial, 1, 10.0 * (1 + trial // 2), pid=1 + trial % 2) for trial in range(8)])
    assert cost.idle_share(cost.find_stretches(busy)) == pytest.approx(0, abs=1e-9)
    assert not cost.is_eventful(cost.find_stretches(busy))
    assert cost.is_eventful(cost.find_stretches(busy.assign(host=["a", "b"] * 4)))
    waiting = cost.find_stretches(busy[busy["trial"] < 5])  # the second worker waits for the last trial
    assert cost.idle_share(waiting) == pytest.approx(1 / 6)
    assert cost.is_eventful(waiting)
    assert not cost.is_eventful(cost.find_stretches(busy.head(2).assign(host=["a", "b"])))


def test_the_parts_of_a_bar_sum_to_the_trials_seconds(result: SearchResult) -> None:
    figure = cost.plot_seconds(result.trials)
    frame = result.trials.set_index("trial")
    for position, trial in enumerate(figure.data[0].x):
        total = sum(trace.y[position] for trace in figure.data)
        assert total == pytest.approx(frame.loc[trial, "train_seconds"] + frame.loc[trial, "eval_seconds"], abs=0.003)


def test_many_trials_are_drawn_as_means_of_neighbors(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MAX_BARS", 10)
    trace = cost.plot_seconds(result.trials).data[-1]
    assert len(trace.x) == 8
    assert trace.hovertext[1] == "mean of trials 3 to 5"
    assert trace.y[1] == pytest.approx(result.trials.set_index("trial").loc[3:5, "eval_seconds"].mean(), abs=0.001)
