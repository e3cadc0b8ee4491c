"""Tables in the documentation that were made from CSV and JSON files in benchmarks/results say what these say."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.damaged_files import FILES
from tests.support.documents import agree, of_section, tables, text_of
from tune_cure.evaluation.catastrophic_overfitting import catastrophic_overfitting
from tune_cure.training.presets import METHODS, NO_METHOD
from tune_cure.utils.formatting import format_points

RESULTS = Path("benchmarks/results")
CONFIRMATIONS = {
    "Digits": "confirm_digits",
    "CIFAR-10 on a CPU": "confirm_cifar10",
    "Radius 16/255 on a CPU": "confirm_large_epsilon",
}
METRICS = {"clean": "clean", "PGD-10": "pgd_10", "PGD-50-10": "pgd_50_10", "AutoAttack": "autoattack"}


def contender(label: str) -> str:
    """`trial 11, the winner` → trial-11; `ablation`: … → ablation."""
    trial = re.match(r"trial (\d+)", label)
    return f"trial-{trial[1]}" if trial else label.partition(":")[0]


def radius(label: str, default: float) -> float:
    """What follows `at`, as a number."""
    at = re.search(r" at (\d+)/255", label)
    return int(at[1]) / 255 if at else default


def accuracies(found: dict[str, Any], rows: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Of each cell with an accuracy: what is written, and what is to be."""
    default = found["means"][0]["epsilon"]
    for row in rows:
        for title, cell in list(row.items())[1:]:
            metric = METRICS.get(re.sub(r" at .*", "", title))
            if metric:
                epsilon = radius(title, default)
                (mean,) = (
                    mean
                    for mean in found["means"]
                    if mean["contender"] == contender(row[""]) and mean["epsilon"] == pytest.approx(epsilon)
                )
                yield cell, f"{100 * mean[metric]:.1f} ± {100 * mean[f'{metric}_sd']:.1f}"


@pytest.mark.parametrize("heading", CONFIRMATIONS)
def test_documented_accuracies_of_a_confirmation_are_those_in_its_json(heading: str) -> None:
    found = json.loads((RESULTS / CONFIRMATIONS[heading] / "confirm.json").read_text(encoding="utf-8"))
    cells = list(accuracies(found, of_section("results.md", heading, "clean")))
    assert len(cells) >= 6
    for written, wanted in cells:
        assert written == wanted


@pytest.mark.parametrize("heading", CONFIRMATIONS)
def test_documented_verdicts_of_a_confirmation_are_those_in_its_json(heading: str) -> None:
    found = json.loads((RESULTS / CONFIRMATIONS[heading] / "confirm.json").read_text(encoding="utf-8"))
    for row in of_section("results.md", heading, "AutoAttack accuracy"):
        who = row["AutoAttack accuracy"]
        (pair,) = (
            pair
            for pair in found["comparisons"]
            if (pair["first"], pair["second"], pair["metric"])
            == (contender(who), contender(row["against"]), "autoattack")
            and pair["epsilon"] == pytest.approx(radius(who, found["means"][0]["epsilon"]))
        )
        assert row["difference, points"] == format_points(pair["difference"])
        assert row["95% interval"] == f"{format_points(pair['low'])} to {format_points(pair['high'])}"
        assert row["verdict"] == pair["verdict"]


def test_the_table_of_cheaper_penalties_is_that_of_its_csv_files() -> None:
    start, winner = (
        pd.read_csv(RESULTS / f"trade_offs_{name}.csv").set_index("variant") for name in ("digits_start", "digits")
    )
    rows = of_section("performance.md", "What the cheaper forms cost", "penalty")
    assert [row["penalty"] for row in rows] == list(start.index)
    for row in rows[1:]:
        of, at_winner = start.loc[row["penalty"]], winner.loc[row["penalty"]]
        quartiles = f"({of['relative_seconds_25']:.2f} to {of['relative_seconds_75']:.2f})"
        assert row["time of a step"] == f"{of['relative_seconds']:.2f} {quartiles}"
        for title, found in (("where the search began, 3 seeds", of), ("at the winner, 6 seeds", at_winner)):
            assert row[title] == f"{100 * found['pgd_50_10']:.1f} ± {100 * found['pgd_50_10_sd']:.1f}"


STEPS = {
    "FGSM": "none: FGSM",
    "the original loop": "classic, as in the original: running statistics, random start",
    "batch statistics": "the batch's statistics, random start (the default)",
    "batch statistics, from the image": "the batch's statistics, from the image",
    "along FGSM, from the image": "along FGSM, from the image",
    "batch statistics, every 2nd step": "the default in every 2nd step",
    "batch statistics, on half of the batch": "the default on half of the batch",
}
ONE_SIDED = ", one-sided"


def times(column: str) -> Callable[["pd.Series[Any]"], str]:
    """A ratio with its quartiles; of a loop to itself, and where there is none, without."""

    def form(of: "pd.Series[Any]") -> str:
        if pd.isna(of[column]):
            return "–"
        low, high = of[f"{column}_25"], of[f"{column}_75"]
        return "1" if low == high == 1 else f"{of[column]:.2f} ({low:.2f} to {high:.2f})"

    return form


PERFORMANCE: dict[str, tuple[str, str, dict[str, Callable[["pd.Series[Any]"], str]]]] = {
    "The step": ("loop", "step", {
        "loop": lambda of: of["loop"],
        "penalty": lambda of: (
            STEPS[of["step"].removesuffix(ONE_SIDED)] + (ONE_SIDED if of["step"].endswith(ONE_SIDED) else "")
        ),
        "images/s": lambda of: f"{of['images_per_second']:.1f}",
        "× the original": times("times_the_original"),
        "× its reference": times("times_its_reference"),
        "forwards": lambda of: f"{of['forwards']:.1f}",
        "of the peak": lambda of: f"{of['of_the_peak']:.2f}",
    }),
    "Evaluation": ("attack", "step_evaluation", {
        "PGD accuracy": lambda of: f"{100 * of['accuracy']:.1f}%",
        "of the reference": lambda of: f"{100 * of['reference_accuracy']:.1f}%",
        "images/s": lambda of: f"{of['images_per_second']:.0f}",
        "× the reference": lambda of: f"{of['times_the_reference']:.1f}",
    }),
    "The CPU": ("network", "cpu", {
        "network": lambda of: of["model"],
        "images a step": lambda of: str(of["batch"]),
        "threads": lambda of: str(of["threads"]),
        "measure": lambda of: of["where"],
        "time of a step": lambda of: f"{of['time']:.2f} ({of['time_25']:.2f} to {of['time_75']:.2f})",
        "peak memory, MB": lambda of: f"{of['peak_mb']:,.0f}",
        "without, MB": lambda of: f"{of['peak_mb_without']:,.0f}",
    }),
    "Trials at a time": ("trials an hour", "scaling", {
        "at a time": lambda of: f"{of['concurrent']:.0f}",
        "trials an hour": lambda of: f"{of['trials_per_hour']:.0f}",
        "share of the workers' time in training and judging": lambda of: (
            f"{100 * of['share_in_training_and_judging']:.0f}%"
        ),
    }),
    "Steps of other methods": ("forwards of its loop", "method_steps", {
        "method": lambda of: of["method"],
        "forwards": lambda of: f"{of['forwards']:.1f}",
        "forwards of its loop": lambda of: f"{of['forwards_of_its_loop']:.1f}",
        "× its loop": times("times_its_loop"),
    }),
    "The time before the start": ("announced, s", "estimates", {
        "command": lambda of: of["what"],
        "announced, s": lambda of: f"{of['estimated_seconds']:.0f}",
        "taken, s": lambda of: f"{of['seconds']:.0f}",
        "ratio": lambda of: f"{of['ratio']:.2f}",
    }),
    "Start-up": ("command", "startup", {
        "command": lambda of: of["command"],
        "× importing torch": times("times_import_torch"),
        "× its CPU time": lambda of: f"{of['times_import_torch_cpu']:.2f}",
        "× its own before": times("times_before"),
        "× its own CPU time before": lambda of: f"{of['times_before_cpu']:.2f}",
        "at most": lambda of: "–" if pd.isna(of["limit"]) else f"{of['limit']:.1f}",
    }),
}  # fmt: skip
"""Of sections of docs/performance.md: a column of the table, its CSV file, and what its cells say of a row there."""


@pytest.mark.parametrize("section", PERFORMANCE)
def test_a_table_of_measured_times_is_that_of_its_csv(section: str) -> None:
    column, file, forms = PERFORMANCE[section]
    agree(of_section("performance.md", section, column), pd.read_csv(RESULTS / f"{file}.csv"), forms)


def test_coarser_gradients_of_the_judging_attack_move_no_accuracy_by_a_standard_error() -> None:
    measured = pd.read_csv(RESULTS / "attack_gradients.csv")
    assert set(measured["gradients"]) == {"exact", "TF32", "bfloat16"}
    assert measured["in_errors"].abs().max() < 0.25
    assert (measured.loc[measured["gradients"] == "TF32", "differ"] == 0).all()
    rows = of_section("correctness.md", "Gradients of the judging attack", "network")
    groups = measured.groupby(["network", "attack"], sort=False)
    assert len(rows) == len(groups)
    for row, ((network, attack), group) in zip(rows, groups, strict=True):
        found = group.set_index("gradients")
        assert (row["network"], row["attack"]) == (network, attack)
        assert row["one standard error"] == f"{100 * found.loc['exact', 'error']:.1f}%"
        for kind in found.index:
            assert row[kind] == f"{100 * found.loc[kind, 'accuracy']:.1f}%"


def test_the_documented_table_of_faults_sums_up_its_csv() -> None:
    columns = {
        "trials lost": "trials lost",
        "twice": "trials run twice",
        "not ended": "trials not ended",
        "failed": "trials failed",
        "numbers changed": "numbers changed",
        "study disagrees": "study disagrees",
        "tracebacks": "tracebacks",
        "epochs run again": "epochs run again",
    }
    measured = pd.read_csv(RESULTS / "faults.csv")
    rows = [row for _, table in tables(Path("docs/reliability.md")) for row in table if "fault" in row]
    assert [row["fault"] for row in rows] == list(dict.fromkeys(measured["fault"]))
    for row in rows:
        tries = measured[measured["fault"] == row["fault"]]
        assert int(row["tries"]) == len(tries) == (tries["exit code"] == 0).sum()
        continued = tries["resumed"].sum()
        assert row["continued with --resume"] == (str(continued) if continued else "by itself")
        assert {title: int(row[title]) for title in columns} == {
            title: tries[name].sum() for title, name in columns.items()
        }


def test_the_files_that_were_damaged_5000_times_are_those_of_the_csv() -> None:
    tried = pd.read_csv(RESULTS / "damaged_files.csv")
    assert set(tried["file"]) == set(FILES)
    assert not tried["file"].duplicated().any()
    page = Path("docs/reliability.md").read_text()
    assert f"lists the {len(FILES)} files" in page
    assert f"All {len(tried)} files were once damaged 5,000 times each" in page
    assert (tried["damages"] == 5000).all() and (tried["faults"] == 0).all()


def test_the_table_of_launches_on_a_simulated_gpu_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "simulated_steps.csv")
    rows = of_section("performance.md", "Launches on a simulated GPU", "as CUDA graphs")

    def number(column: str) -> Callable[["pd.Series[Any]"], str]:
        return lambda of: "–" if pd.isna(of[column]) else f"{of[column]:,.0f}"

    forms = {
        "penalty": lambda of: of["penalty"],
        "the original's loop: launches": number("reference_launches"),
        "before: launches": number("before_launches"),
        "now: launches": number("now_launches"),
        "as CUDA graphs": lambda of: f"{of['graphs']} graphs, {of['launches_beside_graphs']} launches",
    }
    agree(rows, frame, forms)
    default = frame.iloc[0]
    assert default["now_launches"] <= 0.6 * default["before_launches"]


METHOD_RUNS = {"On digits": "methods_digits.csv", "On CIFAR-10": "methods_cifar10.csv"}


@pytest.mark.parametrize("heading", METHOD_RUNS)
def test_what_each_method_reached_is_what_its_csv_says_and_the_others_are_said_to_be_not_run(heading: str) -> None:
    frame = pd.read_csv(RESULTS / METHOD_RUNS[heading], keep_default_na=False)
    rows = of_section("methods.md", heading, "AutoAttack")
    percent = {title: (lambda of, name=name: f"{100 * of[name]:.0f}") for title, name in METRICS.items()}
    forms = {"method": lambda of: str(of["method"]), **percent, "seconds": lambda of: f"{of['cpu_seconds']:.1f}"}
    agree(rows, frame, forms)
    for row, signs in zip(rows, frame["signs_of_masking"], strict=True):
        assert row["signs of masking"] == (signs or "none")
    text = text_of("methods.md", f"### {heading}")
    missing = [name for name in METHODS if name != NO_METHOD and name not in set(frame["method"])]
    assert (f"Not run: {', '.join(missing)}." in text) == bool(missing)


def mean_in_percent(accuracies: "pd.Series[float]", *, spread: bool = True) -> str:
    """The mean over seeds in percent, with the standard deviation."""
    return f"{100 * accuracies.mean():.1f}" + (f" ± {100 * accuracies.std():.1f}" if spread else "")


def test_the_league_that_was_tried_is_what_its_csv_says() -> None:
    frame = pd.read_csv(RESULTS / "league_digits_copy.csv")
    rows = of_section("correctness.md", "A copy and a handicap in a league", "seconds of training")
    assert [row["method"] for row in rows] == list(frame["method"].unique())
    for row, (_, runs) in zip(rows, frame.groupby("method", sort=False), strict=True):
        first = runs.iloc[0]
        assert row["group"] == first["groups"]
        assert row["AutoAttack, %"] == mean_in_percent(runs["autoattack"])
        assert (int(row["trials"]), int(row["epochs"])) == (first["search_trials"], first["search_epochs"])
        assert row["seconds of training"] == f"{first['search_seconds']:.1f}"
    assert (frame["search_seconds"] / 65.5 - 1).abs().max() < 0.01


def league_tables(name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of a league: runs, pairs, and what tuning was worth, by the method."""
    runs, pairs, tuning = (pd.read_csv(RESULTS / f"league_{name}{of}.csv") for of in ("", "_pairs", "_tuning"))
    return runs, pairs, tuning.set_index("first")


def check_standings(rows: list[dict[str, str]], frame: pd.DataFrame, tuning: pd.DataFrame) -> None:
    """Compare the standings that a page shows with the tables of the league."""
    assert [row["method"] for row in rows] == list(frame["method"].unique())
    for row, (name, runs) in zip(rows, frame.groupby("method", sort=False), strict=True):
        assert (row["group"], int(row["trials"])) == (runs["groups"].iloc[0], runs["search_trials"].iloc[0])
        assert row["AutoAttack"] == mean_in_percent(runs["autoattack"])
        assert row["untuned, AutoAttack"] == mean_in_percent(runs["preset_autoattack"])
        assert row["PGD-50-10"] == mean_in_percent(runs["pgd_50_10"], spread=False)
        assert row["clean"] == mean_in_percent(runs["clean"], spread=False)
        worth = [format_points(tuning.loc[name, of]) for of in ("difference", "low", "high")]
        assert row["tuning was worth"] == "{} ({} to {})".format(*worth)


def test_the_league_of_all_methods_is_what_its_csvs_say() -> None:
    frame, pairs, tuning = league_tables("digits")
    rows = of_section("results.md", "A league of all methods", "tuning was worth")
    assert {row["method"] for row in rows} == set(METHODS) - {NO_METHOD}
    check_standings(rows, frame, tuning)

    text = " ".join(text_of("results.md", "## A league of all methods").split())
    means, presets = (frame.groupby("method")[of].mean() for of in ("autoattack", "preset_autoattack"))
    winners = frame.groupby("method").first()
    found = winners["hyperparameters"].map(json.loads)
    middle = means.quantile(0.75) - means.quantile(0.25)
    assert f"the middle half of the tuned methods lies within {100 * middle:.1f}" in text
    assert (means > presets.max()).sum() == 8
    assert presets.idxmax() == "trades"
    assert min(values["lr_max"] for values in found) >= 0.1
    assert f"{sum(values['epsilon'] > 0.15 for values in found)} of the 17 winners train at a larger radius" in text
    assert f"had {winners['search_trials'].sum()} trials and {winners['search_epochs'].sum():,} epochs" in text
    assert (frame["search_seconds"] / 58.92 - 1).abs().max() < 0.004
    told = tuning["verdict"].eq("better")
    worth = tuning["difference"][told]
    assert f"Tuning was worth {100 * worth.min():.0f} to {100 * worth.max():.0f} points to {len(worth)} of" in text
    assert f"{pairs['verdict'].eq('cannot tell').sum()} of the {len(pairs)} pairs" in text
    first = pairs[pairs["first"].eq("trades")].set_index("second")["verdict"]
    assert first.eq("cannot tell").sum() == 8
    assert first["cure"] == first["fgsm_rs"] == "cannot tell"
    cure = pairs[pairs["first"].eq("fgsm_rs") & pairs["second"].eq("cure")].iloc[0]
    low, high = format_points(cure["low"]), format_points(cure["high"])
    difference = f"the difference is {100 * cure['difference']:.1f} points for `fgsm_rs`"
    assert f"{difference}, with an interval of {low} to {high}" in text
    epoch = winners["search_seconds"] / winners["search_epochs"]
    ratio, trials = epoch["cure"] / epoch["fgsm_rs"], winners["search_trials"]
    said = f"An epoch of `cure` took {ratio:.1f} times as long, so it had {trials['cure']} trials, and `fgsm_rs`"
    assert f"{said} {trials['fgsm_rs']}" in text


def test_the_league_on_cifar10_is_what_its_csvs_say() -> None:
    frame, pairs, tuning = league_tables("cifar10")
    check_standings(of_section("results.md", "A league on CIFAR-10", "tuning was worth"), frame, tuning)

    text = " ".join(text_of("results.md", "## A league on CIFAR-10").split())
    means = 100 * frame.groupby("method", sort=False)[["autoattack", "clean"]].mean()
    winners = frame.groupby("method").first()
    pair = pairs.set_index(["first", "second"]).loc[("cure", "fgsm_rs")]
    low, high = format_points(pair["low"]), format_points(pair["high"])
    assert f"the difference lies between {low} and {high} points" in text
    assert f"`cure` has {means.loc['fgsm_rs', 'clean'] - means.loc['cure', 'clean']:.1f} points less clean" in text
    assert (tuning["verdict"] == "cannot tell").all()
    untold = pairs["verdict"].eq("cannot tell")
    assert f"{untold.sum()} of the {len(pairs)} pairs cannot be told apart" in text
    assert list(pairs.loc[~untold, "first"]) == ["pgd", "fgsm_pgi", "gradalign"]
    assert set(pairs.loc[~untold, "second"]) == {"free"}
    others = means["autoattack"].drop("free")
    assert f"The whole table but `free` lies within {others.max() - others.min():.1f}." in text
    assert f"had {winners['search_trials'].sum()} trials and {winners['search_epochs'].sum()} epochs" in text
    spent = winners["search_seconds"]
    assert f"equal within {100 * (spent.max() / spent.min() - 1):.1f}%" in text
    one, two, three = 100 * frame.loc[frame["method"] == "n_fgsm", "autoattack"]
    assert f"networks of `n_fgsm` have {one:.1f}, {two:.1f} and {three:.1f}%" in text
    collapsed = winners["search_catastrophic_overfitting"]
    assert collapsed["n_fgsm"] == collapsed.sum() == 3
    assert frame["catastrophic_overfitting_epoch"].isna().all()


def test_the_table_of_epochs_written_by_hand_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "by_hand_epochs.csv")
    by_turn = frame.pivot(index="turn", columns=["part", "way"], values="cpu_seconds")
    parts = {"epoch": by_turn["epoch"], "judgement": by_turn["judgement"]}
    parts["both"] = parts["epoch"] + parts["judgement"]
    rows = of_section("performance.md", "A search written by hand", "part")
    assert [row["part"] for row in rows] == list(parts)
    for row in rows:
        of = parts[row["part"]]
        ratio = of["tune_cure"] / of["by hand"]
        assert row["ratio"] == f"{ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        assert (row["this tool"], row["by hand"]) == tuple(
            f"{of[way].median():.1f}" for way in ("tune_cure", "by hand")
        )


def test_the_table_of_searches_written_by_hand_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "by_hand.csv")
    agree(of_section("performance.md", "A search written by hand", "way"), frame, {
        "space": lambda found: found["space"],
        "way": lambda found: "this tool" if found["way"] == "tune_cure" else found["way"],
        "seconds": lambda found: f"{found['seconds']:,.0f}",
        "trials": lambda found: str(found["trials"]),
        "epochs": lambda found: str(found["epochs"]),
        "best on validation images": lambda found: f"{100 * found['best_validation_accuracy']:.1f}%",
        "PGD-50-10": lambda found: (
            f"{100 * found['pgd_50_10_accuracy']:.1f} ± {100 * found['pgd_50_10_accuracy_se']:.1f}%"
        ),
    })  # fmt: skip
    text = " ".join(text_of("performance.md", "## A search written by hand").split())
    for space, of in frame.set_index("way").groupby("space"):
        ratio = of.loc["tune_cure", "seconds"] / of.loc["by hand", "seconds"]
        assert f"{ratio:.2f} of the wall time on `{space}`" in text


SIMULATED: dict[str, Callable[["pd.Series[Any]"], str]] = {
    "seeds": lambda of: str(of["seeds"]),
    "wrong verdicts": lambda of: f"{100 * of['pooled_seeds']:.1f}%",
    "if each pair went by its own seeds": lambda of: f"{100 * of['own_seeds']:.1f}%",
}


def test_the_tables_of_wrong_verdicts_are_those_of_the_simulation() -> None:
    frame = pd.read_csv(RESULTS / "verdicts.csv", dtype={"deviation_points": str})
    order = ["compared", "seeds", "deviation_points"]
    equal = frame[frame["difference_points"].eq(0) & frame["deviation_points"].ne("0")]
    deviation = "standard deviation over seeds, points"
    rows = of_section("correctness.md", "Wrong verdicts of a confirmation", "wrong verdicts")
    shown = [(row["compared"], int(row["seeds"]), row[deviation].replace(",", "")) for row in rows]
    agree(rows, equal.set_index(order, drop=False).loc[shown], SIMULATED)
    rows = of_section("correctness.md", "Wrong verdicts of a league", "wrong verdicts")
    leagues = equal[equal["compared"].str.startswith("league")]
    one_varies = leagues["deviation_points"].str.contains(" ")
    agree(rows, pd.concat([leagues[~one_varies], leagues[one_varies].sort_values(order)]), SIMULATED)
    rows = of_section("correctness.md", "Wrong verdicts of a confirmation", "found")
    found = frame[frame["difference_points"].gt(0)].sort_values("compared", kind="stable", ascending=False)
    agree(rows, found, {
        "compared": lambda of: of["compared"], deviation: lambda of: of["deviation_points"],
        "found": lambda of: f"{100 * of['pooled_seeds']:.0f}%",
        "if each pair went by its own seeds": lambda of: f"{100 * of['own_seeds']:.0f}%",
    })  # fmt: skip


def test_what_the_pages_say_of_wrong_verdicts_is_what_the_tables_say() -> None:
    frame = pd.read_csv(RESULTS / "verdicts.csv", dtype={"deviation_points": str})
    alike = frame["difference_points"].eq(0) & frame["deviation_points"].isin(("1", "2", "5"))

    def span(rows: "pd.Series[bool]") -> str:
        shares = 100 * frame.loc[rows, "pooled_seeds"]
        return f"{shares.min():.1f} to {shares.max():.1f}%"

    confirming = " ".join(text_of("confirming.md", "## Who is better").split())
    assert f"{span(alike & frame['compared'].eq('confirmation of 3 leaders and 4 baselines'))} of those" in confirming
    one_varies = frame["compared"].eq("confirmation of 1 leader and 4 baselines, one of which varies tenfold")
    assert f"and {span(one_varies)} where one candidate varies tenfold" in confirming
    pair = frame["compared"].eq("one pair that differs") & frame["seeds"].eq(3) & frame["deviation_points"].eq("2")
    assert f"was found in {100 * frame.loc[pair, 'pooled_seeds'].item():.0f}% of single pairs" in confirming
    league = " ".join(text_of("league.md", "## Who wins").split())
    assert f"{span(alike & frame['compared'].isin(('league of 4', 'league of 8')))} had a wrong verdict" in league
    two_vary = frame["compared"].str.startswith("league") & frame["seeds"].eq(2) & frame["deviation_points"].ne("0")
    assert f"up to {100 * frame.loc[two_vary, 'pooled_seeds'].max():.1f}% where two of eight" in league


def test_the_table_of_collapses_that_are_seen_is_that_of_its_csv() -> None:
    rows = of_section("correctness.md", "When it is seen", "compared with")
    agree(rows, pd.read_csv(RESULTS / "collapse_rule.csv"), {
        "weights": lambda of: str(of["weights"]), "compared with": lambda of: str(of["compared_with"]),
        "collapsed, of 177": lambda of: str(of["collapsed"]), "of these seen": lambda of: str(of["seen"]),
        "epochs later, median": lambda of: f"{of['median_delay']:g}",
        "seen without a collapse": lambda of: str(of["seen_without"]),
    })  # fmt: skip


def test_the_table_of_what_ending_at_a_collapse_saves_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "collapse_ending.csv")
    section = "Ending a trial at its collapse"
    agree(of_section("early_stopping.md", section, "data set"), frame, {
        "weights": lambda of: of["weights"], "data set": lambda of: of["dataset"], "trials": lambda of: str(of["runs"]),
        "collapsed": lambda of: str(of["collapsed"]), "better later than before": lambda of: str(of["better_later"]),
        "epochs saved by ending": lambda of: f"{100 * of['saved']:.0f}%",
        "winner's PGD accuracy, ending": lambda of: f"{100 * of['winner_end']:.1f}",
        "going on": lambda of: f"{100 * of['winner_continue']:.1f}",
        "best place of a collapsed one": lambda of: str(of["best_rank_of_collapsed"]),
    })  # fmt: skip
    text = " ".join(text_of("early_stopping.md", f"## {section}").split())
    saved = 100 * frame["saved"]
    assert f"cost no winner in any of the six, and saved {saved.min():.0f} to {saved.max():.0f}% of all" in text
    assert frame["winner_end"].eq(frame["winner_continue"]).all()
    assert f"Of the {frame['collapsed'].sum()} collapsed curves {frame['better_later'].sum()} were better" in text


def test_the_collapses_on_digits_are_what_the_rule_sees_in_the_recorded_epochs() -> None:
    epochs = pd.read_csv(RESULTS / "catastrophic_overfitting_epochs.csv")
    summary = pd.read_csv(RESULTS / "catastrophic_overfitting.csv").set_index(["run", "seed"])
    first: dict[str, list[str]] = {}
    for (name, seed), run in epochs.groupby(["run", "seed"], sort=False):
        rows = run.to_dict("records")
        seen = []
        for number, now in enumerate(rows):
            best = max(rows[:number], key=lambda row: row["pgd_accuracy"], default=None)
            assert catastrophic_overfitting(best, now) == now["catastrophic_overfitting"]
            seen += [now["epoch"]] if now["catastrophic_overfitting"] else []
        detected = summary.loc[(name, seed), "detected_in_epoch"]
        assert seen[:1] == ([] if pd.isna(detected) else [detected])
        first.setdefault(str(name), []).append(str(seen[0]) if seen else "–")
    rows = of_section("correctness.md", "Catastrophic overfitting", "seen in epoch")
    assert [row["seen in epoch"] for row in rows] == [", ".join(found) for found in first.values()]
    shown = [row["overfitted catastrophically in epoch"] for row in of_section("method.md", "Does it help?", "FGSM")]
    assert shown == [rows[0]["seen in epoch"], rows[2]["seen in epoch"], rows[4]["seen in epoch"]]


def test_the_comparison_of_autoattack_with_the_official_one_names_what_was_compared() -> None:
    frame = pd.read_csv(RESULTS / "autoattack_official.csv")
    rows = of_section("correctness.md", "AutoAttack against the official implementation", "images judged alike")
    assert [row["network"] for row in rows] == frame["network"].tolist()
    for row, (_, recorded) in zip(rows, frame.iterrows(), strict=True):
        assert [row[name] for name in ("ours", "official")] == [f"{recorded[x]:.1%}" for x in ("ours", "official")]
        assert row["images judged alike"] == f"{recorded['images judged alike']} of {recorded['examples']}"
        versions = f"pyautoattack {recorded['pyautoattack']}, official commit {recorded['official commit']}"
        assert versions in text_of("correctness.md", "## AutoAttack against the official implementation")
