import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tune_cure import figures, figures_space, plotting, report, results
from tune_cure.journal import Journal
from tune_cure.results import SearchResult
from tune_cure.spec import SearchSpec, load
from tune_cure.training import EPOCH_METRICS

SPACE = """
name: digits-search
data: {dataset: digits, validation: 360}
model: small_cnn
training: {epochs: 12, batch_size: 64, lr_schedule: cyclic}
space:
  lambda:   {loguniform: [0.003, 10]}
  h:        {uniform: [0.1, 2.0]}
  lr_max:   {loguniform: [0.02, 0.5]}
  momentum: {choice: [0.0, 0.9]}
start_from: [{lambda: 10, h: 1, lr_max: 0.1, momentum: 0.9}]
evaluation: {epsilon: 0.15, examples: 360}
search: {trials: 24}
asha: {grace_period: 1, reduction_factor: 3}
"""
UNUSUAL_ENDS = {5: "catastrophic_overfitting", 9: "diverged", 13: "failed"}
BEST = 17
REASON = "RuntimeError: <script>alert('no')</script> & more"


def write_run(directory: Path, num_trials: int = 24, *, num_unfinished: int = 0, judged: bool = True) -> SearchSpec:
    """A search's folder as a run leaves it, its numbers made up; the best trial of 24 is `BEST`."""
    space = directory / "space.yaml"
    space.write_text(SPACE)
    spec = load(space)
    (directory / results.SPEC).write_text(spec.to_yaml())
    journal = Journal(directory)
    journal.path.touch()
    for number in range(num_trials):
        _write_trial(journal, spec, number, finished=number < num_trials - num_unfinished, judged=judged)
    return spec


def _write_trial(journal: Journal, spec: SearchSpec, number: int, *, finished: bool, judged: bool) -> None:
    at = [(number * 0.618 + 0.37 * axis) % 1 for axis in range(3)]  # evenly spread over the space
    lambda_, momentum = 0.003 * (10 / 0.003) ** at[0], 0.9 if number % 3 else 0.0
    proposed = {"lambda": lambda_, "h": 0.1 + 1.9 * at[1], "lr_max": 0.02 * 25 ** at[2], "momentum": momentum}
    is_start = number < len(spec.start_from)
    values = spec.start_from[number] if is_start else proposed
    clock = 1_760_000_000.0 + 30 * number
    journal.append("trial", number, time=clock, origin="start_from" if is_start else "sampler", hyperparameters=values)
    ended = UNUSUAL_ENDS.get(number, "completed" if number in (0, 2, 7, BEST, 20) else "stopped")
    last = {"stopped": 1 if number % 3 else 3, "catastrophic_overfitting": 6, "diverged": 3, "failed": 2}.get(ended, 12)
    level = 0.45 + 0.01 * (number % 7) + 0.2 * (number == BEST) - 0.15 * (ended == "stopped")
    best = None
    for epoch in range(1, last + (0 if not finished and last > 1 else 1)):
        failed = not judged or (ended == "diverged" and epoch == last)
        collapsed = ended == "catastrophic_overfitting" and epoch == last
        pgd = 0.01 if collapsed else level * (1 - math.exp(-epoch / 3)) + 0.01 * math.sin(epoch + number)
        pgd = round(360 * pgd) / 360
        best = best if failed else max(best or 0.0, pgd)
        metrics: dict[str, Any] = dict.fromkeys(EPOCH_METRICS)
        metrics |= {"epoch": epoch, "train_seconds": 0.5, "eval_seconds": 0.1, "skipped_steps": 0}
        metrics |= {"catastrophic_overfitting": collapsed, "pgd_accuracy_best": best}
        if not failed:
            metrics |= {
                "pgd_accuracy": pgd,
                "clean_accuracy": min(pgd + 0.3 - 0.1 * at[0], 1),
                "fgsm_accuracy": pgd + 0.05,
            }
        ended_now = ended if finished and epoch == last else ""
        clock += 10
        journal.append(
            "epoch", number, time=clock, **metrics, objective=best or 0.0, ended=ended_now, host="here", pid=1
        )
        journal.append("checkpoint", number, time=clock, epoch=epoch, path=f"trials/{number}/{epoch}")
    if finished:
        journal.append("end", number, time=clock, status=ended, reason=REASON if ended == "failed" else "")


def page(directory: Path) -> str:
    return report.write(SearchResult(directory)).read_text(encoding="utf-8")


def words(directory: Path) -> str:
    """The page's own text: without plotly.js, plots, styles and tags."""
    text = re.sub(r"<(script|style)>.*?</\1>", " ", page(directory), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text))


def test_the_summary_gives_the_winner_its_accuracy_and_the_difference_to_start_from(tmp_path: Path) -> None:
    write_run(tmp_path)
    frame = results.trials(tmp_path).set_index("trial")
    best, baseline = frame.loc[BEST], frame.loc[0]
    text = words(tmp_path)
    assert f"Trial {BEST} won with lambda {best['lambda']:.4g}" in text
    assert f"{100 * best['pgd_accuracy_best']:.1f}% ± {100 * best['pgd_accuracy_best_se']:.1f} points" in text
    assert f"{100 * best['clean_accuracy_best']:.1f}%" in text
    assert f"+{100 * (best['pgd_accuracy_best'] - baseline['pgd_accuracy_best']):.1f} points" in text
    assert "360 validation images" in text
    assert "10 steps and 1 random start within an L∞ radius of 0.15 (38.2/255)" in text
    assert f"{frame['epochs_trained'].sum()} epochs of training, of 288" in text
    assert "The test set is still untouched" in text


def test_several_metrics_and_constraints_are_said(tmp_path: Path) -> None:
    write_run(tmp_path)
    search = (
        "search={trials: 24, metric: [pgd_accuracy_best, clean_accuracy_best], constraints: [clean_accuracy >= 0.4]}"
    )
    (tmp_path / results.SPEC).write_text(load(tmp_path / "space.yaml", [search]).to_yaml())
    frame, content, text = results.trials(tmp_path), SearchResult(tmp_path).summary, words(tmp_path)
    assert 1 < frame["feasible"].sum() < len(frame)
    assert f"{frame['feasible'].sum()} trials keep clean_accuracy &gt;= 0.4; the others rank behind" in text
    assert f"falling behind in another: {content['pareto_front'][0]}" in text
    table = page(tmp_path)
    assert table.count("<small>Pareto front</small>") == len(content["pareto_front"])
    assert table.count("<small>violates a constraint</small>") == frame["feasible"].eq(False).sum()


def test_every_kind_of_end_is_said_in_words(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = words(tmp_path)
    assert "1 overfitted catastrophically, 1 diverged and 1 failed" in text
    assert "overfitted catastrophically in epoch 6" in text


def test_what_comes_from_disk_is_escaped(tmp_path: Path) -> None:
    write_run(tmp_path)
    environment = {"command": "run <b>&", "data": "<i>digits</i>", "gpus": ["<u>"], "versions": {"torch": None}}
    (tmp_path / report.ENVIRONMENT).write_text(json.dumps(environment))
    text = page(tmp_path)
    assert "alert(&#x27;no&#x27;)" in text
    for raw in ("<script>alert", "<b>&", "<i>digits", "<u>"):
        assert raw not in text
    assert "run &lt;b&gt;&amp;" in text


def test_the_page_is_complete_in_itself(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = page(tmp_path)
    assert not re.search(
        r"<(link|script[^>]*\ssrc|img|iframe)\b", re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    )
    outside_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"src\s*=|href\s*=\s*\"(?!#)|url\(|@import|https?://", outside_scripts)
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    write_run(tmp_path, 3)
    assert page(tmp_path) == page(tmp_path)


def test_command_and_environment_are_given_where_they_are_known(tmp_path: Path) -> None:
    write_run(tmp_path, 3)
    assert "Environment" not in words(tmp_path)
    content = {"command": "python run_search.py", "versions": {"torch": "2.11", "ray": None}, "gpus": [], "cpus": 2}
    (tmp_path / report.ENVIRONMENT).write_text(json.dumps(content))
    text = words(tmp_path)
    assert "python run_search.py" in text
    assert "torch 2.11, ray none" in text


def test_a_search_without_trials_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, 0)
    text = words(tmp_path)
    assert "No trial has begun yet, of 24 planned" in text
    assert "No trial has been judged yet" in text


def test_trials_that_were_never_judged_leave_a_table_but_no_winner(tmp_path: Path) -> None:
    write_run(tmp_path, 2, judged=False)
    text = words(tmp_path)
    assert "No trial has been judged yet" in text
    assert "All trials" in text


@pytest.mark.parametrize("num_trials", [1, 3])
def test_few_trials_are_enough(tmp_path: Path, num_trials: int) -> None:
    write_run(tmp_path, num_trials)
    text = words(tmp_path)
    assert f"{num_trials} of 24" in text
    assert f"{24 - num_trials} of 24 not begun" in text
    assert "Trial 0 leads" in text or "Trial 2 leads" in text


def test_an_unfinished_search_says_what_is_missing(tmp_path: Path) -> None:
    write_run(tmp_path, 20, num_unfinished=2)
    assert "The search is not over: 2 trials unfinished and 4 of 24 not begun." in words(tmp_path)


def test_a_winner_that_came_from_start_from_is_not_compared_with_itself(tmp_path: Path) -> None:
    write_run(tmp_path, 1)
    assert "is the start_from configuration: nothing has beaten it" in words(tmp_path)


def test_a_leader_that_overfitted_catastrophically_is_marked(tmp_path: Path) -> None:
    spec = write_run(tmp_path, 0)
    _write_trial(Journal(tmp_path), spec, 5, finished=True, judged=True)
    assert "what it scored before is not what its hyperparameters give" in words(tmp_path)


def test_a_long_table_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.setattr(report, "MAX_ROWS", 10)
    text = page(tmp_path)
    assert "The first 10 of 24" in text
    table = text[text.index('<h2 id="trials">') :]
    assert len(re.findall(r'<th scope="row">\d', table)) == 10


@pytest.fixture
def run(tmp_path: Path) -> tuple[SearchSpec, pd.DataFrame, pd.DataFrame]:
    spec = write_run(tmp_path)
    return spec, results.trials(tmp_path), results.epochs(tmp_path)


Run = tuple[SearchSpec, pd.DataFrame, pd.DataFrame]


def test_curves_emphasise_the_best_and_start_from_and_draw_the_rungs(run: Run) -> None:
    spec, trials, epochs = run
    figure = figures.curves(trials, epochs, spec, BEST)
    names = [trace.name for trace in figure.data]
    assert names[0] == "other trials"
    assert names[-2:] == ["start_from: trial 0", f"best: trial {BEST}"]
    assert len(names) == 3 + trials["status"].nunique()
    assert [shape.x0 for shape in figure.layout.shapes] == spec.rungs == [1, 3, 9]


def test_a_curve_ends_where_its_trial_ended(run: Run) -> None:
    spec, trials, epochs = run
    others = figures.curves(trials, epochs, spec, BEST).data[0]
    assert len(others.x) == len(others.y) == len(others.hovertext)
    ends = [before for before, at in zip(others.x, others.x[1:], strict=False) if at is None]
    judged = epochs.dropna(subset=["pgd_accuracy"]).groupby("trial")["epoch"].max()
    assert ends == [judged[number] for number in judged.index if number not in (0, BEST)]


def test_the_axis_follows_the_distribution(run: Run) -> None:
    spec, trials, _ = run
    axes = {key: figures_space.hyperparameter(trials, spec, key, BEST).layout.xaxis for key in spec.space}
    assert {key: axis.type for key, axis in axes.items()} == {
        "lambda": "log", "h": "linear", "lr_max": "log", "momentum": "category"
    }  # fmt: skip
    assert axes["lambda"].range[0] < math.log10(0.003) < 1 < axes["lambda"].range[1]
    assert list(axes["lr_max"].ticktext) == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    assert list(axes["lambda"].ticktext) == ["0.01", "0.1", "1", "10"]
    assert list(axes["momentum"].categoryarray) == ["0", "0.9"]


def test_points_are_told_apart_by_symbol_and_colour_and_the_best_is_ringed(run: Run) -> None:
    spec, trials, _ = run
    figure = figures.accuracies(trials, spec, BEST)
    front, *points, start, best = figure.data
    assert front.name == "Pareto front"
    assert len(points) == trials.dropna(subset=["pgd_accuracy_best"])["status"].nunique()
    assert len({trace.marker.symbol for trace in points}) == len(points)
    assert sum(len(trace.x) for trace in points) == trials["pgd_accuracy_best"].notna().sum()
    assert (start.name, best.name) == ("start_from", "best")
    assert best.y[0] == trials.set_index("trial").loc[BEST, "pgd_accuracy_best"]


def test_every_status_has_a_symbol_of_its_own() -> None:
    assert len({style.symbol for style in plotting.STATUSES.values()}) == len(plotting.STATUSES)
    assert len({style.glyph for style in plotting.STATUSES.values()}) == len(plotting.STATUSES)


def test_rungs_too_close_to_each_other_share_a_label() -> None:
    assert figures.labelled([1, 3, 9, 27, 81], 200) == [1, 27, 81]
    assert figures.labelled([1, 3, 9], 12) == [1, 3, 9]
