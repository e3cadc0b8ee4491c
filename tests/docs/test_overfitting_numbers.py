"""What docs/results.md says of the runs of benchmarks/overfitting.py is in their files."""

import json
from pathlib import Path

import pandas as pd

from tests.support.documents import agree, of_section, text_of

RESULTS = Path("benchmarks/results")
RUNS = RESULTS / "overfitting"
SECTION = "Catastrophic overfitting on CIFAR-10: under way"
ARMS = {"fgsm_rs": 10, "cure": 10, "cure_every_step": 5, "cure_zero": 1, "n_fgsm": 5, "gradalign": 5, "elle": 5}
ARMS |= {"pgd_2": 5, "fgsm_rs_long": 5}
"""The runs that the protocol asks for."""


def summaries(arm: str) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(RUNS.glob(f"{arm}-[0-9].json"))]


def test_the_table_of_arms_is_that_of_its_csv_and_the_csv_has_all_runs() -> None:
    frame = pd.read_csv(RESULTS / "overfitting_arms.csv")
    assert {of["arm"]: of["runs"] for _, of in frame.iterrows()} == {
        arm: len(found) for arm in ARMS if (found := summaries(arm))
    }
    percent = {
        "last network: AutoAttack": "last_autoattack",
        "PGD-50-10": "last_pgd_50_10",
        "clean": "last_clean",
        "best network: AutoAttack": "best_autoattack",
    }
    agree(of_section("results.md", SECTION, "arm"), frame, {
        "arm": lambda of: of["arm"],
        "runs": lambda of: f"{of['runs']} of {ARMS[of['arm']]}",
        "judged": lambda of: str(of["judged"]),
        "collapsed": lambda of: str(of["collapsed"]),
        "of these recovered": lambda of: str(of["recovered"]),
        **{title: lambda of, name=name: f"{100 * of[name]:.1f}" for title, name in percent.items()},
        "minutes of training": lambda of: f"{of['minutes']:.0f}",
    })  # fmt: skip


def test_the_sentences_on_the_runs_are_those_of_their_files() -> None:
    text = " ".join(text_of("results.md", f"## {SECTION}").split())
    done = sum(len(summaries(arm)) for arm in ARMS)
    assert f"asks for {sum(ARMS.values())} runs on" in text
    assert f"and {done} are done" in text
    counts = [
        (sum(bool(of["collapsed_epochs"]) for of in summaries(arm)), len(summaries(arm))) for arm in ("fgsm_rs", "cure")
    ]
    (plain, of_plain), (with_penalty, of_penalty) = counts
    assert f"has collapsed in {plain} of {of_plain} runs, and in {with_penalty} of {of_penalty} with" in text
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
