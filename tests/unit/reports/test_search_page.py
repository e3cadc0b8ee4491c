import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.support.journals import BEST, epoch, write_search, write_trial
from tune_cure.reports import search_page, tables, trial_tables
from tune_cure.search import results, run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load


def page_html(directory: Path) -> str:
    return search_page.write(SearchResult(directory)).read_text(encoding="utf-8")


def page_text(directory: Path) -> str:
    """The page's own text: without plotly.js, plots, styles and tags."""
    text = re.sub(r"<(script|style)>.*?</\1>", " ", page_html(directory), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text))


def test_the_summary_gives_the_winner_its_accuracy_and_the_difference_to_start_from(tmp_path: Path) -> None:
    write_search(tmp_path)
    frame = results.trials(tmp_path).set_index("trial")
    best, baseline = frame.loc[BEST], frame.loc[0]
    text = page_text(tmp_path)
    assert f"Trial {BEST} won with lambda {best['lambda']:.4g}" in text
    assert f"{100 * best['pgd_accuracy_best']:.1f} ± {100 * best['pgd_accuracy_best_se']:.1f}%" in text
    assert f"{100 * best['clean_accuracy_best']:.1f}%" in text
    assert f"+{100 * (best['pgd_accuracy_best'] - baseline['pgd_accuracy_best']):.1f} points" in text
    assert "360 validation images" in text
    assert "10 steps and 1 random start within epsilon 0.15 (38.2/255) in L∞" in text
    most = SearchResult(tmp_path).summary["epochs_without_early_stopping"]
    spent = frame["epochs_trained"].sum()
    assert f"{spent} epochs of training. Without early stopping, its 24 trials would have taken {most}." in text
    assert "The test set is still untouched" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.regularizer=cure", "adversarial training: attack fgsm, regularizer cure"),
        ("training.method=trades", "adversarial training: TRADES"),
        ("space.attack={choice: [fgsm, pgd]}", "adversarial training: attack searched, regularizer cure"),
    ],
)
def test_the_page_begins_with_how_its_trials_are_trained(change: str, words: str, tmp_path: Path) -> None:
    spec = load("search_spaces/quickstart.yaml", [change, "start_from=[]"])
    assert f"<p>Hyperparameter search for {words}</p>" in search_page._header(spec, pd.DataFrame())


def test_several_metrics_and_constraints_are_explained(tmp_path: Path) -> None:
    write_search(tmp_path)
    search = (
        "search={trials: 24, metric: [pgd_accuracy_best, clean_accuracy_best], constraints: [clean_accuracy >= 0.4]}"
    )
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", [search]).to_yaml())
    frame, content, text = results.trials(tmp_path), SearchResult(tmp_path).summary, page_text(tmp_path)
    assert 1 < frame["feasible"].sum() < len(frame)
    assert f"{frame['feasible'].sum()} trials keep clean_accuracy &gt;= 0.4; the others rank behind" in text
    assert f"falling behind in another: {content['pareto_front'][0]}" in text
    table = page_html(tmp_path)
    assert table.count("<small>Pareto front</small>") == len(content["pareto_front"])
    assert table.count("<small>violates a constraint</small>") == frame["feasible"].eq(False).sum()


def test_the_tables_of_trials_have_the_metric_that_ranks_them(tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    columns = {}
    for metric in ("pgd_accuracy_best", "clean_accuracy"):
        changes = [f"search.metric={metric}", "evaluation.examples=2"]  # so few images that all trials tie
        (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", changes).to_yaml())
        result = SearchResult(tmp_path)
        tables_of_trials = trial_tables.table_of_trials(result), trial_tables.table_of_ties(result)
        columns[metric] = [html.count(">objective</th>") for html in tables_of_trials]
    assert columns == {"pgd_accuracy_best": [0, 0], "clean_accuracy": [1, 1]}
    assert "The objective is the clean accuracy after the last epoch." in tables_of_trials[0]
    first = result.trials.loc[result.leaders.index[0]]
    row = tables_of_trials[0].split('class="best"')[1]
    assert row.index(f">{100 * first['objective']:.1f}%<") < row.index(f">{100 * first['pgd_accuracy_best']:.1f} ±")


def test_every_way_to_end_is_given_in_words(tmp_path: Path) -> None:
    write_search(tmp_path)
    text = page_text(tmp_path)
    assert "1 overfitted catastrophically, 1 diverged and 1 failed" in text
    assert "overfitted catastrophically in epoch 6" in text


def test_what_comes_from_disk_is_escaped(tmp_path: Path) -> None:
    write_search(tmp_path)
    environment = {"command": "run <b>&", "data": "<i>digits</i>", "gpus": ["<u>"], "versions": {"torch": None}}
    (tmp_path / run_files.ENVIRONMENT).write_text(json.dumps(environment))
    text = page_html(tmp_path)
    assert "alert(&#x27;no&#x27;)" in text
    for raw in ("<script>alert", "<b>&", "<i>digits", "<u>"):
        assert raw not in text
    assert "run &lt;b&gt;&amp;" in text


def test_the_page_is_complete_in_itself(tmp_path: Path) -> None:
    write_search(tmp_path)
    text = page_html(tmp_path)
    assert not re.search(
        r"<(link|script[^>]*\ssrc|img|iframe)\b", re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    )
    outside_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"src\s*=|href\s*=\s*\"(?!#)|url\(|@import|https?://", outside_scripts)
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text


def test_every_plot_has_a_label_for_screen_readers(tmp_path: Path) -> None:
    write_search(tmp_path)
    text = page_html(tmp_path)
    labels = re.findall(r'<div class="plot" id="plot-[^"]*" role="img" aria-label="([^"<>]*)">', text)
    assert len(labels) == text.count('<div class="plot"') == len(set(labels)) > 10
    assert "PGD accuracy against lambda. lambda: Weight of the mean penalty; 0: none." in labels


def test_trials_as_good_as_the_winner_are_called_ties(tmp_path: Path) -> None:
    write_search(tmp_path)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", ["evaluation.examples=12"]).to_yaml())
    ties = len(SearchResult(tmp_path).as_good) - 1
    text = page_text(tmp_path)
    assert "Ties with the winner" in text
    assert f"{ties} other trials tie with trial {BEST}: at most two standard errors behind it." in text


def test_tables_of_trials_can_be_sorted_and_filtered_and_others_not(tmp_path: Path) -> None:
    write_search(tmp_path)
    html = page_html(tmp_path)
    assert '<table class="sortable">' in html[html.index('<h2 id="trials">') :]
    winner = html[html.index('<h2 id="winner">') : html.index('<h2 id="as-good">')]
    assert "sortable" not in winner


def test_nothing_is_cut_off_or_folded_up_on_paper(tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    text = page_html(tmp_path)
    assert re.search(r"@media print .*pre \{[^}]*white-space: pre-wrap", text, flags=re.DOTALL)
    assert re.search(r'"beforeprint".*details.open = true.*"afterprint".*details.open = false', text, flags=re.DOTALL)


def test_radii_of_pictures_are_in_255ths_in_tables_and_plain_numbers_in_the_csv(tmp_path: Path) -> None:
    write_search(tmp_path, 0)
    space = "space={epsilon: {uniform: [4/255, 12/255]}, lr_max: {loguniform: [0.02, 0.5]}}"
    overrides = ["data={dataset: cifar10, validation: 5000}", space, "start_from=[]", "rescore.top=0"]
    spec = load(tmp_path / "space.yaml", overrides)
    (tmp_path / run_files.SPEC).write_text(spec.to_yaml())
    journal = Journal(tmp_path)
    for number in (0, 2):
        journal.append("trial", number, origin="sampler", hyperparameters={"epsilon": 8.5 / 255, "lr_max": 0.1})
        epoch(journal, number, 1, 0.3, 0.3)
        journal.append("end", number, status="completed", reason="")
    html = page_html(tmp_path)
    assert "<code>epsilon</code> 8.5/255 and <code>lr_max</code> 0.1" in html
    assert '<td class="number">8.5/255</td><td>uniform [4/255, 12/255]</td>' in html
    trials = html[html.index('<h2 id="trials">') :]
    assert trials.count('<td class="number">8.5/255</td>') == 2
    tables.write_top_configurations(SearchResult(tmp_path))
    assert "| 8.5/255 |" in (tmp_path / run_files.TOP_MARKDOWN).read_text(encoding="utf-8")
    tables.write_tables(SearchResult(tmp_path))
    assert pd.read_csv(tmp_path / run_files.TRIALS_TABLE)["epsilon"].tolist() == [8.5 / 255] * 2


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    assert page_html(tmp_path) == page_html(tmp_path)


def test_command_and_environment_are_given_if_they_are_recorded(tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    assert "Environment" not in page_text(tmp_path)
    content = {"command": "python run_search.py", "versions": {"torch": "2.11", "ray": None}, "gpus": [], "cpus": 2}
    (tmp_path / run_files.ENVIRONMENT).write_text(json.dumps(content))
    text = page_text(tmp_path)
    assert "python run_search.py" in text
    assert "torch 2.11, ray none" in text


def test_a_search_without_trials_says_so(tmp_path: Path) -> None:
    write_search(tmp_path, 0)
    text = page_text(tmp_path)
    assert "No trial has begun yet; 24 are planned." in text
    assert "No trial has been judged yet" in text


def test_trials_that_were_never_judged_leave_a_table_but_no_winner(tmp_path: Path) -> None:
    write_search(tmp_path, 2, judged=False)
    text = page_text(tmp_path)
    assert "No trial has been judged yet" in text
    assert "All trials" in text


@pytest.mark.parametrize("num_trials", [1, 3])
def test_few_trials_are_enough(tmp_path: Path, num_trials: int) -> None:
    write_search(tmp_path, num_trials)
    text = page_text(tmp_path)
    assert f"{num_trials} of 24" in text
    assert f"{24 - num_trials} of 24 not begun" in text
    assert "Trial 0 leads" in text or "Trial 2 leads" in text


def test_an_unfinished_search_says_what_is_missing(tmp_path: Path) -> None:
    write_search(tmp_path, 20, num_unfinished=2)
    assert "The search is not over: 2 trials unfinished and 4 of 24 not begun." in page_text(tmp_path)


def test_a_search_whose_patience_is_used_up_is_over(tmp_path: Path) -> None:
    write_search(tmp_path, 22)  # the best is trial 17
    for patience, is_over in ((4, True), (5, False)):
        (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", [f"search.patience={patience}"]).to_yaml())
        text = page_text(tmp_path)
        assert ("The search is not over: 2 of 24 not begun." in text) != is_over
        assert (
            "The search ended early, with 2 of 24 not begun: the last 4 trials improved nothing." in text
        ) == is_over
        assert f"Trial {BEST} {'won' if is_over else 'leads'}" in text


def test_large_numbers_have_thousands_separators(tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", ["search.trials=10000"]).to_yaml())
    text = page_text(tmp_path)
    assert "3 of 10,000" in text
    assert "9,997 of 10,000 not begun" in text


def test_a_winner_that_came_from_start_from_is_not_compared_with_itself(tmp_path: Path) -> None:
    write_search(tmp_path, 1)
    assert "is the start_from configuration: nothing has beaten it" in page_text(tmp_path)


def test_a_leader_that_overfitted_catastrophically_is_marked(tmp_path: Path) -> None:
    spec = write_search(tmp_path, 0)
    write_trial(Journal(tmp_path), spec, 5, finished=True, judged=True)
    assert "Do not expect this score from another training with these hyperparameters." in page_text(tmp_path)


def test_a_trial_that_recovered_says_when_it_overfitted_and_when_it_no_longer_did(tmp_path: Path) -> None:
    spec = write_search(tmp_path, 3)
    search = spec.search.model_copy(update={"on_collapse": "continue"})
    (tmp_path / "spec.yaml").write_text(spec.model_copy(update={"search": search}).to_yaml())
    journal = tmp_path / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line["event"] == "epoch" and line["trial"] == 2 and line["epoch"] in (4, 5):
            line["catastrophic_overfitting"] = True
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert "ran to the end; overfitted in epoch 4, recovered in epoch 6" in page_text(tmp_path)


def test_a_long_table_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_search(tmp_path)
    monkeypatch.setattr(trial_tables, "MAX_ROWS", 10)
    text = page_html(tmp_path)
    assert "The first 10 of 24" in text
    table = text[text.index('<h2 id="trials">') :]
    assert len(re.findall(r'<th scope="row">\d', table)) == 10
