"""What docs/results.md says of the runs of benchmarks/overfitting.py is in their files."""

import json
import re
from pathlib import Path

import pandas as pd
from scipy import stats

from tests.support.documents import text_of
from tools import overfitting_arms

RESULTS = Path("benchmarks/results")
RUNS = RESULTS / "overfitting"
SECTION = "Catastrophic overfitting on CIFAR-10"
ARMS = {"fgsm_rs": 10, "cure": 10, "cure_every_step": 5, "cure_zero": 1, "n_fgsm": 5, "gradalign": 5, "elle": 5}
ARMS |= {"pgd_2": 5, "fgsm_rs_long": 5}
"""The runs that the protocol asks for."""
QUESTION = ("fgsm_rs", "cure")
SEEN_IN_A_PILOT = 4  # seeds of FGSM, whose outcomes were known when the protocol was written
COUNTS = ("runs", "collapsed", "recovered", "in_the_end")


def summaries(arm: str) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(RUNS.glob(f"{arm}-[0-9].json"))]


def test_the_table_of_arms_is_that_of_its_csv_and_the_csv_has_all_runs() -> None:
    frame = pd.read_csv(overfitting_arms.ARMS)
    assert {of["arm"]: of["runs"] for _, of in frame.iterrows()} == {
        arm: len(found) for arm in ARMS if (found := summaries(arm))
    }
    assert frame.set_index("arm")["planned"].to_dict() == {arm: ARMS[arm] for arm in frame["arm"]}
    page = overfitting_arms.PAGE.read_text(encoding="utf-8")
    assert page == overfitting_arms.written(page), "run: make reference"


def test_the_table_of_arms_has_accuracies_in_percent_and_a_dash_where_no_run_is_judged() -> None:
    counts = {"planned": 5, "runs": 3, "collapsed": 2, "recovered": 1, "minutes": 9.6}
    accuracies = {"last_autoattack": 0.1234, "last_pgd_50_10": 0.2, "last_clean": 0.5, "best_autoattack": 0.16}
    rows = [{"arm": "a", "judged": 3, **counts, **accuracies}, {"arm": "b", "judged": 0, **counts}]
    _, _, first, second = overfitting_arms.table(pd.DataFrame(rows)).splitlines()
    assert first == "| `a` | 3 of 5 | 3 | 2 | 1 | 12.3 | 20.0 | 50.0 | 16.0 | 10 |"
    assert second == "| `b` | 3 of 5 | 0 | 2 | 1 | – | – | – | – | 10 |"


def test_the_answer_to_the_question_is_that_of_the_runs_and_of_their_test() -> None:
    text = " ".join(text_of("results.md", f"## {SECTION}").split())
    arms = pd.read_csv(RESULTS / "overfitting_arms.csv").set_index("arm")
    without, penalized = ({key: int(arms.loc[arm, key]) for key in COUNTS} for arm in QUESTION)
    assert without["runs"] == penalized["runs"] == 10
    [pair] = [
        row
        for _, row in pd.read_csv(RESULTS / "overfitting_pairs.csv").iterrows()
        if (row["arm"], row["outcome"]) == ("fgsm_rs", "collapsed")
    ]
    is_told = pair["p"] < 0.05 and pair["difference"] < 0
    assert ("catastrophic overfitting was rarer with CURE's penalty" in text) == is_told
    assert ("cannot be told" in text) != is_told
    for name, arm in zip(QUESTION, (without, penalized), strict=True):
        low, high = (100 * arms.loc[name, f"collapsed_{end}"] for end in ("low", "high"))
        count = "none" if arm["collapsed"] == 0 else str(arm["collapsed"])
        assert re.search(rf"in {count} of {arm['runs']}( runs)? \([^)]*{low:.0f} to {high:.0f}%", text), name
    assert f"Fisher's exact test, p = {pair['p']:.2g})" in text
    assert f"{without['recovered']} of the {without['collapsed']} recovered by themselves" in text
    assert f"so {without['in_the_end']} of {without['runs']} were collapsed in the end" in text
    shortest = [min(float(str(of["train_seconds"])) for of in summaries(arm)) for arm in ("fgsm_rs", "cure")]
    took = f"the shortest training run took {shortest[1] / 60:.1f} minutes, and {shortest[0] / 60:.1f} without it"
    assert f"{took}, {shortest[1] / shortest[0]:.1f} times as long" in text
    new, new_penalized = ([bool(of["collapsed_epochs"]) for of in summaries(arm)[SEEN_IN_A_PILOT:]] for arm in QUESTION)
    assert f"FGSM collapsed in {sum(new)} and CURE in none" in text and not any(new_penalized)
    table = [[sum(found), len(found) - sum(found)] for found in (new, new_penalized)]
    assert f"can be chance (p = {stats.fisher_exact(table).pvalue:.2g})" in text
    readme = " ".join(Path("README.md").read_text(encoding="utf-8").split())
    counts = f"collapsed at some epoch in {without['collapsed']} of {without['runs']} runs, and with CURE's penalty in"
    assert (
        f"{counts} {'none' if penalized['collapsed'] == 0 else penalized['collapsed']} of {penalized['runs']}" in readme
    )
    assert f"[p = {pair['p']:.2g}](docs/results.md" in readme
    assert ("was rarer with the penalty" in readme) == is_told
    assert f"training took {shortest[1] / shortest[0]:.1f} times as long" in readme


def test_what_is_said_of_the_robustness_of_the_two_arms_is_in_their_files() -> None:
    text = " ".join(text_of("results.md", f"## {SECTION}").split())
    arms = pd.read_csv(RESULTS / "overfitting_arms.csv").set_index("arm")
    assert arms.loc[list(QUESTION), "judged"].eq(10).all()
    last, best = (100 * arms.loc[list(QUESTION), f"{network}_autoattack"] for network in ("last", "best"))
    assert f"have {last.iloc[0]:.1f}% without the penalty and {last.iloc[1]:.1f}% with it" in text
    assert f"have {best.iloc[0]:.1f} and {best.iloc[1]:.1f}%." in text
    found = [(bool(of["collapsed_in_the_end"]), float(str(of["last_autoattack"]))) for of in summaries("fgsm_rs")]
    collapsed, sound = ([accuracy for is_collapsed, accuracy in found if is_collapsed == which] for which in (1, 0))
    assert (len(collapsed), max(collapsed), len(sound)) == (2, 0.0, 8)
    assert f"have 0%, and the other eight {100 * sum(sound) / len(sound):.1f}%" in text


def test_the_sentences_on_the_protocol_and_on_lambda_are_those_of_the_files() -> None:
    text = " ".join(text_of("results.md", f"## {SECTION}").split())
    arms = pd.read_csv(RESULTS / "overfitting_arms.csv")
    assert f"asks for {sum(ARMS.values())} runs on" in text
    assert f"{arms['runs'].sum()} are trained and {arms['judged'].sum()} of these judged" in text
    last = {value: pd.read_csv(RUNS / f"lambda_{value}-100.csv")["pgd_accuracy"].iloc[-1] for value in (0.03, 0.1, 0.3)}
    assert max(last, key=lambda value: last[value]) == 0.1
    words = [f"{100 * accuracy:.1f}% with {value}" for value, accuracy in last.items()]
    assert f"was {words[0]}, {words[1]} and {words[2]}." in text
    assert not any(json.loads((RUNS / f"lambda_{value}-100.json").read_text())["collapsed_epochs"] for value in last)


def test_what_ending_at_a_collapse_would_have_cost_these_runs_is_in_their_files() -> None:
    collapses = pd.read_csv(RESULTS / "overfitting_collapses.csv")
    recovered = collapses[collapses["recovered"]]
    text = " ".join(text_of("early_stopping.md", "## Ending a trial at its collapse").split())
    runs = {(arm, of_run): summary for arm in ARMS for of_run, summary in enumerate(summaries(arm))}
    collapsed = [summary for summary in runs.values() if summary["collapsed_epochs"]]
    assert len(collapses) == len(collapsed)
    assert f"Of the {len(runs)} runs of" in text
    assert f"{len(collapses)} have collapsed so far, and {len(recovered)} of these recovered." in text
    assert f"these had at most {100 * recovered['best_before'].max():.1f}% PGD accuracy" in text
    assert f"end with {100 * recovered['last'].min():.1f} to {100 * recovered['last'].max():.1f}%;" in text
    files = [file for arm in ARMS for file in RUNS.glob(f"{arm}-[0-9].csv")]
    sound = [file for file in files if not json.loads(file.with_suffix(".json").read_text())["collapsed_epochs"]]
    last = [100 * pd.read_csv(file)["pgd_accuracy"].iloc[-1] for file in sound]
    assert f"never collapsed end with {min(last):.1f} to {max(last):.1f}%" in text
    saved = collapses["seconds_after"].sum() / sum(float(str(of["train_seconds"])) for of in collapsed)
    assert f"saved {100 * saved:.0f}% of the seconds of the {len(collapses)} runs" in text
