"""Numbers of the pages on searches (`PAGES`) are those of the CSV files in benchmarks/results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.documents import agree, of_section
from tune_cure.search.space import loading
from tune_cure.search.space.config import RescoreConfig
from tune_cure.utils.formatting import format_points

RESULTS = Path("benchmarks/results")


PAGES = ("search_quality", "early_stopping", "second_judgement", "other_tools")


def page_text() -> str:
    """The pages in one line, so that sentences are found wherever their lines break."""
    return " ".join(" ".join(Path(f"docs/{page}.md").read_text(encoding="utf-8").split()) for page in PAGES)


def share(column: str) -> Callable[["pd.Series[Any]"], str]:
    return lambda of: "1" if of[column] == 1 else f"{of[column]:.2f}"


SHARES: dict[str, Callable[["pd.Series[Any]"], str]] = {
    "lower quartile": share("lower_quartile"),
    "median": share("median"),
    "its 95% interval": lambda of: f"{share('median_low')(of)} to {share('median_high')(of)}",
    "upper quartile": share("upper_quartile"),
    "within a fifth": lambda of: f"{of['within_a_fifth']} of {of['seeds']}",
    "reached": lambda of: f"{of['reached']} of {of['seeds']}",
}
"""What every table of ways to search has."""


def test_the_table_of_searches_on_the_surrogate_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_surrogate.csv")
    rows = of_section("search_quality.md", "How many epochs a search needs", "way")
    regret = {"regret at a fifth": lambda of: f"{of['median_regret_at_a_fifth']:.3f}"}
    agree(rows, frame, {"random trials": lambda of: str(of["random_trials"]), **SHARES, **regret})
    for row, way in zip(rows, frame["way"], strict=True):
        assert way.endswith(row["way"].replace("– ", ""))


def test_the_head_of_the_page_says_what_the_searches_on_the_surrogate_need() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_surrogate.csv").set_index(["random_trials", "way"])
    head = page_text().partition("| random")[0]
    needs = {way: f"{of['median']:.2f}" for way, of in frame.loc[48].iterrows()}
    ours = frame.loc[(48, "TPE, ASHA from 9")]
    interval = f"(95% interval {ours['median_low']:.2f} to {ours['median_high']:.2f})"
    adapted = needs["TPE, ASHA from 3, adapted"]
    assert f"from 9 needs a share of {needs['TPE, ASHA from 9']} {interval}, and {adapted} where" in head
    assert f"Random search itself needs {needs['random, no stopping']} until" in head
    assert needs["TPE, no stopping"] == needs["GP, no stopping"]
    assert f"(`gp`) need {needs['GP, no stopping']}." in head
    longer = frame.loc[96, "median"]
    assert f"{longer['TPE, no stopping']:.2f}" == f"{longer['GP, no stopping']:.2f}"
    assert f"96 configurations TPE and `gp` need {longer['GP, no stopping']:.2f}." in head
    assert ours["median"] > 0.25, "the aim was not reached"
    seeds = pd.read_csv(RESULTS / "search_quality_surrogate_seeds.csv").query("random_trials == 48")
    by = seeds.pivot(index="seed", columns="way", values="epochs").fillna(0)
    for rung, differing in ((9, 0), (3, 1), (1, 0)):
        way = f"TPE, ASHA from {rung}"
        assert (by[way] != by[f"{way}, stopped told complete"]).sum() == differing


def test_the_table_of_replays_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_replay.csv")
    rows = of_section("early_stopping.md", "On digits early accuracies mislead", "grace period")
    shown = [(int(row["grace period"]), float(row["reduction factor"])) for row in rows]
    extract = frame.set_index(["grace_period", "reduction_factor"]).loc[shown]
    agree(rows, extract, {
        "saved*": lambda of: f"{100 * of['epochs_saved_mean']:.0f}%",
        "winner kept*": lambda of: f"{100 * of['winner_kept_mean']:.0f}%",
        "regret*, points": lambda of: f"{100 * of['regret_mean']:.1f}",
    })  # fmt: skip


def test_the_tables_of_searches_on_digits_are_those_of_their_csv() -> None:
    section = "On digits, for real"
    frame = pd.read_csv(RESULTS / "search_quality_digits.csv")
    agree(of_section("search_quality.md", section, "lower quartile"), frame, SHARES)
    seeds = pd.read_csv(RESULTS / "search_quality_digits_seeds.csv")
    plain, ours = frame["way"]
    both = seeds[seeds["way"] == ours].merge(seeds[seeds["way"] == plain], on="seed", suffixes=("", "_plain"))
    agree(of_section("search_quality.md", section, "seed"), both, {
        "seed": lambda of: str(of["seed"]),
        "goal": lambda of: f"{100 * of['goal']:.1f}%",
        plain: lambda of: f"{of['epochs_plain']:.0f} epochs, {of['share_plain']:.2f}",
        ours: lambda of: (
            "not in 518, above 0.40" if pd.isna(of["epochs"]) else f"{of['epochs']:.0f} epochs, {of['share']:.2f}"
        ),
        "its trials": lambda of: str(of["trials"]),
    })  # fmt: skip


def test_the_table_of_ways_to_spend_validation_images_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "sharper_judge.csv")
    rows = of_section("second_judgement.md", "Images where they decide", "winner by")
    shown = [(row["search"], row["each epoch is judged by"], row["winner by"]) for row in rows]
    extract = frame.set_index(["search", "judging", "rule"]).loc[shown]
    assert (extract["searches"] == 200).all()

    def difference(column: str, scale: float) -> Callable[["pd.Series[Any]"], str]:
        def form(found: "pd.Series[Any]") -> str:
            low, high = scale * found[f"{column}_low"], scale * found[f"{column}_high"]
            if low == high == 0:
                return "–"
            return f"{(low + high) / 2:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")

        return form

    agree(rows, extract, {
        "images": lambda found: f"{found['images']:.2f}",
        "true accuracy": lambda found: f"{100 * found['accuracy']:.1f}%",
        "difference, points": difference("accuracy", 100),
        "true rank": lambda found: f"{found['rank']:.1f}",
        "difference": difference("rank", 1),
    })  # fmt: skip


GROUPS_OF_PICTURES = {
    "all": "all",
    "piecewise": "lr_schedule: piecewise",
    "onecycle": "lr_schedule: onecycle",
    "the weights themselves": "averaging: none",
    "averaged weights": "averaging: ema",
}
"""What the page calls the trials on pictures, and what picture_curves_ranks.csv does."""


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def test_the_table_of_ranks_on_pictures_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "picture_curves_ranks.csv").set_index(["trials", "epoch"])
    rows = of_section("early_stopping.md", "Whole curves on pictures", "number")
    assert [row["trials"] for row in rows] == list(GROUPS_OF_PICTURES)
    for row in rows:
        found = frame.loc[GROUPS_OF_PICTURES[row["trials"]]]
        assert row["number"] == str(found["number"].iloc[0])
        epochs = [title for title in row if title.isdigit()]
        assert len(epochs) == 8
        assert [row[epoch] for epoch in epochs] == [signed(found.loc[int(epoch), "spearman"]) for epoch in epochs]


def test_what_is_said_of_curves_on_pictures_is_what_was_recorded() -> None:
    curves = pd.read_csv(RESULTS / "picture_curves.csv", keep_default_na=False)
    spec = loading.load("benchmarks/picture_curves.yaml")
    page = page_text()
    best = curves.filter(regex=r"^pgd_\d+$").astype(float).max(axis=1)
    assert len(curves) == spec.search.trials == 24
    assert f"between {100 * best.min():.1f}% and {100 * best.max():.1f}%" in page
    error = (best.mean() * (1 - best.mean()) / spec.evaluation.examples) ** 0.5
    assert f"is {100 * error:.1f} points ({spec.evaluation.examples:,} images)" in page
    ranks = pd.read_csv(RESULTS / "picture_curves_ranks.csv").query("trials == 'all'").set_index("epoch")
    for epoch in (3, 10, 12):
        low, high = signed(ranks.loc[epoch, "low"]), signed(ranks.loc[epoch, "high"])
        assert f"{low} to {high} after {epoch}" in page, epoch
    means = best.groupby([curves["lr_schedule"], curves["averaging"]]).mean()
    for (schedule, averaging), mean in means.items():
        words = "averaged weights" if averaging == "ema" else "the weights themselves"
        assert f"{100 * mean:.1f}% with `{schedule}` and {words}" in page
    for key in ("lambda", "h", "lr_max", "epsilon"):
        assert f"{signed(curves[key].corr(best, method='spearman'))} for {key}" in page


def test_the_table_of_other_tools_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_peers.csv")
    rows = of_section("other_tools.md", "Other tools on the same curves", "first rung")
    budgets = sorted(frame["epochs"].unique())
    assert [f"{budget:,}" for budget in budgets] == ["162", "324", "648", "1,296"]
    regrets = frame.pivot(index=["way", "first_rung"], columns="epochs", values="regret")

    def interval(found: "pd.Series[Any]", mean: str, low: str, high: str, form: Callable[[float], str]) -> str:
        return f"{form(found[mean])} ({form(found[low])} to {form(found[high])})"

    def difference(found: "pd.Series[Any]") -> str:
        if pd.isna(found["difference"]):
            return "–"
        return interval(found, "difference", "difference_low", "difference_high", format_points)

    def regret_after(budget: int) -> Callable[["pd.Series[Any]"], str]:
        return lambda found: f"{100 * regrets.loc[(found['way'], found['first_rung']), budget]:.1f}"

    agree(rows, frame[frame["epochs"] == budgets[-1]], {
        "search": lambda found: found["way"],
        "first rung": lambda found: str(found["first_rung"] or "none"),
        "seeds": lambda found: str(found["seeds"]),
        **{f"{budget}": regret_after(budget) for budget in budgets[:-1]},
        "1,296": lambda found: interval(found, "regret", "low", "high", lambda value: f"{100 * value:.1f}"),
        "difference": difference,
        "driver, s": lambda found: f"{found['driver_seconds']:.2f}",
    })  # fmt: skip


FOUND_OF_OTHER_TOOLS = {
    ("Optuna: GP, HyperbandPruner", 9): "Gaussian process with Hyperband by {} points",
    ("SMAC3: MultiFidelityFacade", 9): "SMAC3 by {}. None",
    ("Syne Tune: ASHA", 3): "(Syne Tune) by {} points",
    ("SMAC3: MultiFidelityFacade", 3): "SMAC3 by {}, Optuna's",
    ("Optuna: GP, HyperbandPruner", 3): "Gaussian process with Hyperband by {}.",
    ("tune_cure: tpe, ASHA, adapted by a control group", 3): "our regret is {} points less",
    ("tune_cure: tpe, no stopping", 0): "TPE is {} points better",
    ("tune_cure: gp, no stopping", 0): "and `gp` {}.",
}


def test_the_text_on_other_tools_says_who_is_better_and_by_how_much() -> None:
    text = page_text()
    frame = pd.read_csv(RESULTS / "search_quality_peers.csv").set_index(["way", "first_rung"])
    ends = frame[frame["epochs"] == frame["epochs"].max()]
    for search, sentence in FOUND_OF_OTHER_TOOLS.items():
        assert sentence.format(f"{-100 * ends.loc[search, 'difference']:.1f}") in text, search
    others = ends[~ends.index.get_level_values("way").str.startswith("tune_cure")]
    better = others.index[others["difference_high"] < 0]
    assert sum(rung == 9 for _, rung in better) == 2
    assert sum(rung == 3 for _, rung in better) > 0.5 * sum(rung == 3 for _, rung in others.index)
    assert ends.loc[("tune_cure: gp, no stopping", 0), "regret"] < others["regret"].min()
    adapted = ends.loc[("tune_cure: tpe, ASHA, adapted by a control group", 3), "regret"]
    from_3 = others.xs(3, level="first_rung")
    assert list(from_3.index[from_3["regret"] < adapted]) == ["Optuna: GP, HyperbandPruner"]


def test_what_the_gaussian_process_learns_from_stopped_trials_is_in_the_csv_of_all_tools() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_peers.csv")
    regrets = frame.pivot(index=["way", "first_rung"], columns="epochs", values="regret")
    rows = of_section("search_quality.md", "What it learns from stopped trials", "162")
    assert len(rows) == 4
    for row in rows:
        sampler, _, rung = row["mean regret, points, after"].partition(", ")
        way = f"tune_cure: {sampler}, {'no stopping' if rung == 'no stopping' else 'ASHA'}"
        found = regrets.loc[(way, 9 if rung == "ASHA from 9" else 0)]
        written = [row["162"], row["324"], row["648"], row["1,296 epochs"]]
        assert written == [f"{100 * regret:.1f}" for regret in found], way
    ends = frame[frame["epochs"] == frame["epochs"].max()].set_index(["way", "first_rung"])
    gp = ends.loc[("tune_cure: gp, ASHA", 9)]
    assert gp["difference_high"] < 0, "better than tpe with the same rungs"
    found = f"{format_points(gp['difference'])} points (95% interval {format_points(gp['difference_low'])} to "
    text = page_text()
    assert f"{found}{format_points(gp['difference_high'])})" in text


def test_the_table_of_expected_improvement_per_second_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_costs_seeds.csv")
    means = frame.groupby("way")[["trials", "regret_at_a_half", "regret_at_all"]].mean()
    rows = of_section("search_quality.md", "Seconds in the acquisition", "acquisition")
    by_seed = frame.pivot(index="seed", columns="way")["regret_at_all"]
    difference = by_seed[rows[1]["acquisition"]] - by_seed[rows[0]["acquisition"]]
    for row in rows:
        mean = means.loc[row["acquisition"]]
        assert row["trials"] == f"{mean['trials']:.1f}"
        assert row["regret at a half, points"] == f"{100 * mean['regret_at_a_half']:.1f}"
        assert row["regret in the end"] == f"{100 * mean['regret_at_all']:.1f}"
    assert rows[1]["difference"] == f"{format_points(difference.mean())} ± {100 * difference.sem():.1f}"
    assert abs(difference.mean()) < difference.sem(), "no better, and no worse"


def test_the_table_of_samplers_by_kind_of_search_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_auto.csv")
    agree(of_section("search_quality.md", "Which sampler suits which search", "space"), frame, {
        "space": lambda found: found["space"],
        "trials": lambda found: str(found["trials"]),
        "seeds": lambda found: str(found["seeds"]),
        "tpe": lambda found: f"{100 * found['tpe']:.1f}",
        "gp": lambda found: f"{100 * found['gp']:.1f}",
        "difference": lambda found: (
            f"{format_points(found['difference'])} ({format_points(found['low'])} to {format_points(found['high'])})"
        ),
    })  # fmt: skip


def percent(column: str) -> Callable[["pd.Series[Any]"], str]:
    return lambda found: f"{100 * found[column]:.0f}%"


def filled(rows: list[dict[str, str]], title: str) -> list[str]:
    """A column in which an empty cell stands for the one above it."""
    return pd.Series([row[title] or None for row in rows]).ffill().tolist()


def test_the_table_of_the_quick_starts_replays_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "quickstart_replay.csv")
    rows = of_section("early_stopping.md", "The quick start's own numbers", "grace period")
    shown = [(int(row["grace period"]), float(row["reduction factor"])) for row in rows]
    by = frame.groupby(["grace_period", "reduction_factor"])
    for column in ("regret", "regret_mean"):
        frame[column] *= 100
    means = by.mean(numeric_only=True).loc[shown]
    for of in ("regret", "regret_mean"):
        means[of] = by[of].apply(lambda seeds: ", ".join(f"{seed:.1f}" for seed in seeds)).loc[shown]
    agree(rows, means, {
        "saved": percent("epochs_saved"),
        "regret": lambda found: found["regret"],
        "saved*": percent("epochs_saved_mean"),
        "winner kept*": percent("winner_kept_mean"),
        "regret*": lambda found: found["regret_mean"],
    })  # fmt: skip


CURVES = {
    "digits, 27 epochs": "digits",
    "pictures, 20 epochs": "pictures",
    "– by piecewise": "pictures, piecewise",
    "– by onecycle": "pictures, onecycle",
    "CIFAR-10": "cifar10",
    "CIFAR-10, averaged weights": "cifar10, averaged",
    "Tiny-ImageNet": "tiny-imagenet",
}
"""What the pages call a set of recorded curves, and what the CSV files do."""


def test_the_table_of_what_a_control_group_estimates_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "control_group.csv")
    frame = frame[frame["estimate"] == "rank correlation"]
    rows = of_section("early_stopping.md", "A control group", "truth in the interval")
    curves = [CURVES[name] for name in filled(rows, "curves")]
    shown = [(of, int(row["first rung"]), float(row["rung"])) for of, row in zip(curves, rows, strict=True)]
    agree(rows, frame[frame["control"] == 0.1].set_index(["curves", "grace_period", "rung"]).loc[shown], {
        "true correlation (Kendall's)": lambda found: signed(found["truth"]),
        "mean estimate": lambda found: signed(found["mean"]),
        "truth in the interval": percent("coverage"),
    })  # fmt: skip
    for share, least in ((0.1, 0.95), (0.25, 0.92)):
        covered = frame.loc[frame["control"] == share, "coverage"]
        assert len(covered) == 68
        assert round(covered.min(), 2) == least, share


def test_the_table_of_what_adapting_costs_is_an_extract_of_its_csv() -> None:
    frame = (
        pd.read_csv(RESULTS / "control_group_adapt.csv")
        .set_index(["curves", "trials", "grace_period", "way"])
        .sort_index()
    )
    rows = of_section("early_stopping.md", "What adapting is worth", "adapted")
    for name, row in zip(filled(rows, "curves"), rows, strict=True):
        trials = frame.loc[CURVES[name]].index.get_level_values("trials").max()  # 48, where so many are recorded
        found = frame.loc[(CURVES[name], trials, int(row["first rung"]))]
        titles = {"no control group": "no group: saved, regret", "control group": "group of 0.1", "adapted": "adapted"}
        for way, title in titles.items():
            assert row[title] == f"{100 * found.loc[way, 'saved']:.0f}%, {100 * found.loc[way, 'regret']:.1f}"
        for way, title in (("no control group", "whole trials, as no group"), ("adapted", "as adapted")):
            assert row[title] == f"{100 * found.loc[way, 'regret_of_whole_trials']:.1f}"


def test_what_is_said_of_rungs_on_pictures_is_in_their_csv() -> None:
    frame = pd.read_csv(RESULTS / "control_group_adapt.csv").query("way == 'no control group'")
    frame = frame[frame["curves"].str.startswith("pictures")].set_index(["curves", "grace_period"])
    late, page = frame.xs(12, level="grace_period"), page_text()
    assert f"kept the winner in {100 * late.loc['pictures', 'winner_kept']:.1f}% of the replays" in page
    assert late.drop("pictures")["winner_kept"].eq(1).all(), "in all with one of them"
    assert f"saves {100 * late['saved'].min():.0f} to {100 * late['saved'].max():.0f}%." in page
    early = frame.loc["pictures, piecewise"].drop(12)
    assert (early["regret"] > early["regret_of_whole_trials"]).all()
    after_two = frame.loc[("pictures, onecycle", 2)]
    assert after_two["regret"] < after_two["regret_of_whole_trials"]
    ranks = pd.read_csv(RESULTS / "picture_curves_ranks.csv").query("trials == 'lr_schedule: piecewise'")
    first_half = ranks.set_index("epoch").loc[:10, "spearman"]
    assert f"is {signed(first_half.max())} at best, and {signed(first_half[10])} after 10 epochs" in page


def test_what_is_said_of_late_and_of_adapted_rungs_is_in_their_csv() -> None:
    frame = (
        pd.read_csv(RESULTS / "control_group_adapt.csv").set_index(["curves", "trials", "grace_period"]).sort_index()
    )
    page = page_text()
    adapted, plain, group = (frame[frame["way"] == way] for way in ("adapted", "no control group", "control group"))
    assert f"at most {100 * adapted['regret'].max():.1f} points in all {len(adapted)} cases" in page
    late = group.xs(60, level="grace_period")
    assert f"loses {100 * late['regret'].max():.1f} points at most" in page
    assert f"saves {100 * late['saved'].min():.0f} to {100 * late['saved'].max():.0f}%" in page
    assert set(late.index[late["regret"] > late["regret_of_whole_trials"]]) == {
        ("cifar100, averaged", 24), ("cifar100, averaged", 48),
    }  # fmt: skip
    less = 100 * (1 - adapted["saved"] / plain["saved"])
    of_late, of_digits = less.xs(60, level="grace_period"), less.xs(9, level="grace_period").loc["digits"]
    many, few = of_late.xs(48, level="trials"), of_late.xs(24, level="trials")
    assert f"{many.min():.0f} to {many.max():.0f}% less with 48 trials, and {few.min():.0f} to {few.max():.0f}%" in page
    assert f"on digits {of_digits[48]:.0f} and {of_digits[24]:.0f}% less" in page
    for of in ("cifar10", "cifar100"):
        early = plain.loc[of].loc[lambda by: by.index.get_level_values("grace_period") <= 10]
        assert (early["regret"] > early["regret_of_whole_trials"]).all()


def test_the_table_of_rungs_is_that_of_the_bundled_spaces() -> None:
    rows = of_section("early_stopping.md", "The rungs of the bundled spaces", "first rung")
    said = {name.strip("` "): row for row in rows for name in row["space"].split(",")}
    spaces = {path.stem: loading.load(path) for path in Path("search_spaces").glob("*.yaml")}
    assert said.keys() == spaces.keys()
    for name, spec in spaces.items():
        asha, row = spec.asha, said[name]
        found = (str(spec.max_epochs), str(spec.rungs[0]), f"{asha.control}" if asha.control else "none")
        assert found == (row["epochs"], row["first rung"], row["control group"]), name
        assert spec.rungs[0] == asha.grace_period
        assert not asha.adapt


def test_the_table_of_ways_to_begin_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_starts.csv").set_index(["way", "scheduler"])
    rows = of_section("search_quality.md", "How a search begins", "mean share")
    for row in rows:
        way, _, scheduler = row[""].rpartition(", ")
        found = frame.loc[(way, scheduler)]
        assert row["mean share"] == f"{found['share']:.2f}"
        assert row["regret at a fifth, points"] == f"{100 * found['regret_at_a_fifth']:.1f}"
        if way == "TPE, 10 random":
            continue
        difference, error = found["regret_at_a_fifth_difference"], found["regret_at_a_fifth_se"]
        written = format_points(difference)
        assert row["difference"] == (f"{written} ± {100 * error:.1f}" if error else written)
        assert difference >= -2 * error
        assert found["share_difference"] >= -2 * found["share_se"]


def test_the_table_of_what_no_sampler_can_beat_is_that_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_known.csv")
    rows = of_section("search_quality.md", "What no sampler can beat", "median share")
    found = {f"{of['way']}, {of['scheduler']}": of for _, of in frame.iterrows()}
    assert {row[""] for row in rows} == set(found)
    for row in rows:
        of = found[row[""]]
        shares = f"{of['median_share']:.2f}", f"{of['share']:.2f}"
        regrets = f"{100 * of['regret_at_a_half']:.1f}", f"{100 * of['regret_at_all']:.1f}"
        assert (*shares, *regrets) == tuple(list(row.values())[1:])
    limits = [found[f"optimum, 10 random, {words}"]["median_share"] for words in ("no stopping", "ASHA from 9")]
    assert f"with less than {limits[0]:.2f}**, against" in page_text()
    assert f"With ASHA from 9 the limit is {limits[1]:.2f}." in page_text()


def test_the_table_of_the_gaussian_process_is_that_of_its_two_csvs() -> None:
    files = {"process": "search_quality_gp.csv", "trees": "search_quality_gp_trees.csv"}
    frames = {name: pd.read_csv(RESULTS / file).set_index(["way", "scheduler"]) for name, file in files.items()}
    rows = [line.strip("|").split("|") for line in Path("docs/search_quality.md").read_text().splitlines()]
    rows = [[cell.strip() for cell in row] for row in rows if row[0].strip() in files]
    assert len(rows) == 8
    clear = []
    for surrogate, words, *cells in rows:
        sampler, _, scheduler = words.partition(", ")
        of = frames[surrogate].loc[(f"{sampler}, 10 random", scheduler)]
        assert of["seeds"] == 60
        for place, name in enumerate(["share", "regret_at_a_half", "regret_at_all"]):
            mean, difference, error = of[name], of[f"{name}_difference"], of[f"{name}_se"]
            form, by = (lambda value: f"{value:+.2f}".replace("-", "−"), 1) if name == "share" else (format_points, 100)
            assert cells[2 * place] == f"{by * mean:.{2 if by == 1 else 1}f}"
            if sampler == "GP":
                assert cells[2 * place + 1] == f"{form(difference)} ± {by * error:.{2 if by == 1 else 1}f}"
                assert difference < 2 * error, "nowhere worse"
                clear += [(surrogate, scheduler, name)] if difference < -2 * error else []
    assert [one for one in clear if one[0] == "trees"] == [("trees", "no stopping", "regret_at_a_half")]
    assert {one[1:] for one in clear} > {("no stopping", "regret_at_all"), ("ASHA from 9", "regret_at_all")}


def test_the_table_of_what_the_second_judgement_needs_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "second_judgement.csv").set_index(["data", "steps", "starts"])
    rows = of_section("second_judgement.md", "What the second judgement needs", "steps")
    for row in rows:
        attack = int(row["steps"]), int(row["starts"])
        assert row["price"] == f"{frame.loc[('pictures', *attack), 'cost']:.2f}"
        for data in ("pictures", "digits"):
            of = frame.loc[(data, *attack)]
            assert abs(of["cost"] - frame.loc[("pictures", *attack), "cost"]) < 0.01
            assert row[f"{data}: missed"] == f"{100 * of['missed']:.2f} ± {100 * of['missed_deviation']:.2f}"
            assert row[f"{data}: winner of 8"] == f"{100 * of['winner_8']:.1f}%"
    chosen = RescoreConfig()
    default = frame.xs((chosen.steps, chosen.restarts), level=["steps", "starts"])
    assert default["missed"].max() < 0.001
    assert default.loc["pictures", "cost"] * chosen.examples == pytest.approx(1000, rel=0.02)
    assert list(default["networks"]) == [8, 14]
    assert list(default["images"]) == [1500, 359]
    assert [f"{100 * error:.1f}" for error in default["sampling_deviation"]] == ["0.7", "1.9"]


def test_why_there_is_no_surrogate_of_pictures_is_in_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "picture_curves_left_out.csv").set_index("mean")
    points = {name: f"{100 * of['left_out_error']:.1f}" for name, of in frame.iterrows()}
    spread, error = (f"{100 * frame.loc['trees', name]:.1f}" for name in ("spread", "standard_error"))
    text = page_text()
    assert f"spread by {spread} points (standard deviation), and the standard error of one is {error}:" in text
    assert f"to {points['process']} points by a Gaussian process and to {points['trees']} by trees" in text


def test_the_table_of_winners_by_posterior_mean_is_an_extract_of_its_csv() -> None:
    frame = pd.read_csv(RESULTS / "search_quality_winners.csv").set_index(["search", "rule"])
    rows = of_section("second_judgement.md", "The winner by posterior mean", "best accuracy")
    rules = {
        "best accuracy": "best accuracy",
        "second judgement of 3": "fresh, top 3",
        "posterior of these 3": "posterior, top 3",
        "posterior of 8": "posterior, top 8",
        "the best that ran to its end": "best of all",
    }
    for row in rows:
        for title, rule in rules.items():
            found = frame.loc[(row["search"], rule)]
            written = f"{100 * found['regret']:.2f}"
            if rule.startswith("posterior"):
                written += f" (−{-100 * found['difference']:.2f} ± {100 * found['se']:.2f})"
            assert row[title] == written
        assert frame.loc[(row["search"], "best accuracy"), "searches"] == (99 if "16" in row["search"] else 100)
    by_gp, by_tpe = (
        frame.loc[(search, "fresh, top 3"), "regret"] for search in (rows[-1]["search"], rows[2]["search"])
    )
    assert (
        f"`gp` without stopping has {100 * by_gp:.2f} where TPE with ASHA from 9 has {100 * by_tpe:.2f}" in page_text()
    )
