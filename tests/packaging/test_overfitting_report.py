"""What the tables of benchmarks/overfitting.py say of its runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

PGD = {  # by epoch; below 0.05 is collapsed
    ("fgsm_rs", 0): [0.10, 0.20, 0.01],
    ("fgsm_rs", 1): [0.15, 0.02, 0.18],
    ("fgsm_rs", 2): [0.10, 0.15, 0.17],
    ("cure", 0): [0.10, 0.15, 0.16],
    ("cure", 1): [0.10, 0.14, 0.16],
}
WITHSTOOD = {("fgsm_rs", 1): 30, ("fgsm_rs", 2): 50, ("cure", 0): 40, ("cure", 1): 42}
"""Of 100 images, by the last network; the missing run has diverged."""


@pytest.fixture
def report(script: Any) -> Any:
    return script("overfitting_report")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for (arm, seed), pgd in PGD.items():
        log = pd.DataFrame({"epoch": [1, 2, 3], "pgd_accuracy": pgd, "train_seconds": [50.0, 30.0, 20.0]})
        log.to_csv(tmp_path / f"{arm}-{seed}.csv", index=False)
        collapsed = [epoch for epoch, accuracy in enumerate(pgd, start=1) if accuracy < 0.05]
        summary = {"collapsed_epochs": collapsed, "collapsed_in_the_end": 3 in collapsed, "train_seconds": 100.0}
        summary["diverged"] = (arm, seed) not in WITHSTOOD
        if (arm, seed) in WITHSTOOD:
            summary |= {"last_clean": 1.0, "last_autoattack": WITHSTOOD[arm, seed] / 100}
            correct = np.arange(100) < WITHSTOOD[arm, seed]
            np.savez(tmp_path / f"{arm}-{seed}-last.npz", clean=np.ones(100, dtype=bool), autoattack=correct)
        (tmp_path / f"{arm}-{seed}.json").write_text(json.dumps(summary))
    return tmp_path


def test_arms_have_their_collapses_with_exact_intervals_and_a_run_that_diverged_is_wrong_on_all(
    report: Any, results: Path
) -> None:
    arms = report.describe_arms(report.read(results)).set_index("arm")
    assert list(arms.index) == ["fgsm_rs", "cure"]
    assert arms.loc["fgsm_rs", ["runs", "collapsed", "recovered", "in_the_end"]].tolist() == [3, 2, 1, 1]
    assert arms.loc["cure", ["runs", "collapsed", "recovered", "in_the_end"]].tolist() == [2, 0, 0, 0]
    assert arms.loc["cure", "collapsed_high"] == pytest.approx(1 - 0.025**0.5)  # of Clopper and Pearson, none of two
    assert arms.loc["fgsm_rs", "last_autoattack"] == pytest.approx((0.0 + 0.3 + 0.5) / 3)
    assert arms.loc["cure", "minutes"] == pytest.approx(100 / 60)


def test_a_run_that_is_not_judged_counts_among_the_collapses_but_not_in_the_accuracies(
    report: Any, results: Path
) -> None:
    file = results / "fgsm_rs-1.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in summary.items() if not key.startswith("last_")}))
    (results / "fgsm_rs-1-last.npz").unlink()
    found = report.read(results)
    arms = report.describe_arms(found).set_index("arm")
    assert arms.loc["fgsm_rs", ["runs", "collapsed", "judged"]].tolist() == [3, 2, 2]
    assert arms.loc["fgsm_rs", "last_autoattack"] == pytest.approx((0.0 + 0.5) / 2)
    pairs = report.compare(found).set_index("outcome")
    assert pairs.loc["collapsed", "difference"] == pytest.approx(-2 / 3)
    assert pairs.loc["last_autoattack", "runs"] == 1


def test_arms_are_compared_by_the_tests_of_the_protocol(report: Any, results: Path) -> None:
    pairs = report.compare(report.read(results)).set_index("outcome")
    assert pairs["arm"].eq("fgsm_rs").all()
    assert pairs.loc["collapsed", "difference"] == pytest.approx(-2 / 3)
    assert pairs.loc["collapsed", "p"] == pytest.approx(0.4)  # of 10 ways to place two collapses, 3 + 1 are as extreme
    assert pairs.loc["collapsed", "p_holm"] == pairs.loc["collapsed", "p"], "the primary hypothesis stands by itself"
    assert pairs.loc["last_autoattack", "difference"] == pytest.approx((0.40 + 0.42) / 2 - (0.0 + 0.30) / 2)
    assert pairs.loc["last_autoattack", "runs"] == 2
    others = pairs.drop("collapsed")
    assert (others["p_holm"] >= others["p"]).all()
    assert others["p_holm"].min() == pytest.approx(min(1.0, 2 * others["p"].min()))


def test_an_arm_of_one_run_is_compared_with_nothing_but_must_equal_the_run_that_it_copies(
    report: Any, results: Path
) -> None:
    log = pd.read_csv(results / "fgsm_rs-0.csv").assign(
        lr=0.1, train_loss=2.0, clean_accuracy=0.3, fgsm_accuracy=0.2, gradient_alignment=0.9
    )
    log.to_csv(results / "fgsm_rs-0.csv", index=False)
    assert report.is_copy(report.read(results)) is None
    log.assign(train_seconds=1.0).to_csv(results / "cure_zero-0.csv", index=False)
    (results / "cure_zero-0.json").write_text((results / "fgsm_rs-0.json").read_text())
    arms = report.read(results)
    assert "cure_zero" in arms and "cure_zero" not in report.compare(arms)["arm"].tolist()
    assert report.is_copy(arms) is True
    log.assign(train_loss=[2.0, 2.0, 2.0 + 1e-12]).to_csv(results / "cure_zero-0.csv", index=False)
    assert report.is_copy(report.read(results)) is False


def test_the_primary_hypothesis_waits_for_its_two_arms_and_all_others_for_all_arms(
    report: Any, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = report.read(results)

    def tested(**seeds: int) -> list[str]:
        monkeypatch.setattr(report, "ARMS", {name: report.ARMS[name].__class__({}, num) for name, num in seeds.items()})
        pairs = report.compare_complete(arms)
        return [] if pairs.empty else pairs["outcome"].tolist()

    assert tested(fgsm_rs=3, cure=2) == ["collapsed", "in_the_end", "last_autoattack"]
    monkeypatch.setitem(report.ARMS, "elle", report.ARMS["cure"])
    assert report.compare_complete(arms)["outcome"].tolist() == ["collapsed"]
    assert report.compare_complete(arms)["p_holm"].tolist() == [pytest.approx(0.4)]
    assert tested(fgsm_rs=3, cure=3) == []


def test_a_collapse_says_what_ending_the_run_saves_and_costs(report: Any, results: Path) -> None:
    collapses = report.list_collapses(report.read(results)).set_index("seed")
    assert collapses["arm"].eq("fgsm_rs").all()
    assert collapses.loc[0, ["first_epoch", "best_before", "last", "seconds_after"]].tolist() == [3, 0.20, 0.01, 0]
    recovered = collapses.loc[1]
    assert bool(recovered["recovered"]) and not bool(collapses.loc[0, "recovered"])
    assert recovered[["first_epoch", "epochs_collapsed", "best_before", "best_after"]].tolist() == [2, 1, 0.15, 0.18]
    assert recovered["share_after"] == pytest.approx(0.2)
