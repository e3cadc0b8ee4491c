"""Page of a league: who wins, what cannot be said, and the plots and tables that it rests on."""

import logging
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from tune_cure.confirmation.seed_words import describe_interval
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.league.conclusions import (
    describe_accuracy,
    format_interval,
    format_reversed_interval,
    what_cannot_be_said,
    what_tuning_was_worth,
    who_wins,
)
from tune_cure.league.folder import League
from tune_cure.league.standings import QUARTILES, Standings
from tune_cure.reports import confirmation_section, html_page
from tune_cure.reports.figures.legends import build_legend, colored_glyph, line_mark
from tune_cure.reports.figures.progress import line_legend
from tune_cure.reports.figures.style import SKY_BLUE
from tune_cure.reports.league import figures
from tune_cure.search import run_files
from tune_cure.training.sections import MAX_EPOCHS
from tune_cure.utils import environment
from tune_cure.utils.csv_tables import read_csv
from tune_cure.utils.errors import first_line
from tune_cure.utils.formatting import (
    format_count,
    format_hyperparameters,
    format_percent,
    format_points,
    format_radius,
    format_seconds,
    join_words,
    quote_path,
)
from tune_cure.utils.significance import mean_and_deviation

_logger = logging.getLogger(__name__)

MAX_OPEN_PAIRS = 15  # more pairs than that are folded away


def write(standings: Standings, league: League, path: Path) -> None:
    """Write the page.

    Args:
        standings: The standings.
        league: The league.
        path: The file.
    """
    sections = {
        "standings": ("Standings", _standings(standings)),
        "limits": ("What cannot be said", _limits(standings, league)),
        "cost": ("Accuracy and training time", _accuracy_and_time(standings)),
        "tuning": ("What tuning was worth", _tuning(standings)),
        "pairs": ("Every pair", _pairs(standings)),
        "curves": ("Learning curves of the winners", _curves(standings, league.folder)),
        "stability": ("Collapses, and how much the trials differ", _stability(standings)),
        "weights": ("Best and last weights", _best_and_last(standings)),
        "winners": ("Winning configurations", _winners(standings, league.folder)),
        "runs": ("Every run", confirmation_section.table_of_runs(standings.confirmation)),
    }
    titles = {name: title for name, (title, content) in sections.items() if content}
    folder_name = league.folder.resolve().name
    body = [
        _header(standings, league),
        html_page.section_links(titles | {"provenance": "How it was run"}),
        "<main>",
        *(html_page.section(name, title, sections[name][1]) for name, title in titles.items()),
        html_page.provenance_section(
            environment.read(league.folder),
            (league.folder / run_files.LEAGUE).read_text(encoding="utf-8"),
            f"The league's settings ({run_files.LEAGUE})",
        ),
        "</main>",
    ]
    html_page.write(path, f"{folder_name}: league", body)


def _header(standings: Standings, league: League) -> str:
    answer, *others = [escape(sentence) for sentence in who_wins(standings)]
    config = league.config
    budget = ""
    if config.budget is not None:
        is_seconds = config.budget_by == "seconds"
        spent = format_seconds(config.budget) if is_seconds else format_count(round(config.budget), "epoch")
        budget = f" Each search had {spent} of training."
    runs = standings.confirmation.table
    seeds = format_count(int(runs["seed"].nunique()), "seed")
    methods = format_count(len(standings.methods), "method")
    text = (
        f"{methods}, each tuned by a search of its own with an equal budget.{budget} Winners and untuned presets were "
        f"then trained anew with {seeds} on {runs['train_images'].max():,} images, and their last weights judged on "
        f"{runs['examples'].max():,} test images that no search has read."
    )
    title = f"League of {methods}: {league.folder.resolve().name}"
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="answer"><strong>{answer}</strong> {" ".join(others)}</p><p>{escape(text)}</p></header>'
    )


def _standings(standings: Standings) -> str:
    """Return the table of methods, best first."""
    if not standings.order:
        return ""
    labels = standings.confirmation.attack_labels
    others = [
        name
        for name in reversed(COMPARED_ATTACKS)
        if name != standings.attack and standings.runs(standings.order[0])[name].notna().any()
    ]
    has_best = bool(standings.table[f"best_{standings.attack}"].notna().any())
    titles = {"method": "", "rank": "number", "groups": "", labels[standings.attack]: "number"}
    titles |= {"behind the first": "number", "simultaneous 95% interval": "number"}
    titles |= {labels[name]: "number" for name in others} | ({"best weights": "number"} if has_best else {})
    titles |= {"training of a run": "number"} | ({"flagged": ""} if standings.flags else {})
    shortest = standings.confirmation.shortest_trainings()
    rows = [_standings_row(standings, name, others, shortest[name], has_best=has_best) for name in standings.order]
    at = format_radius(standings.epsilon, str(standings.confirmation.table["norm"].iloc[0]))
    text = (
        f"Accuracies on test images at {at}, in percent: means over the seeds ± their standard deviation. "
        f"<strong>Methods that share a letter cannot be told apart</strong> under {labels[standings.attack]}, by which "
        "they are ranked: verdicts hold at 5% for all pairs together (Holm 1979). The intervals hold for all pairs "
        f"together, too (Bonferroni); each {describe_interval(standings.spread)}. "
        f"{escape(standings.confirmation.autoattack)}"
    )
    return f"<p>{text.rstrip()}</p>" + html_page.table(titles, rows, sortable=True)


def _standings_row(
    standings: Standings, name: str, others: Sequence[str], train_seconds: float, *, has_best: bool
) -> str:
    runs, pairs, first = standings.runs(name), standings.pairs, standings.order[0]
    behind = pairs[pairs["first"].eq(first) & pairs["second"].eq(name)]
    gap = ["–", "–"]
    if len(behind):
        row = behind.iloc[0]
        gap = [format_points(0.0 - row["difference"]), format_reversed_interval(row)]
    numbers = [_mean(runs[standings.attack]), *gap, *(_mean(runs[attack]) for attack in others)]
    if has_best:
        numbers.append(_mean(runs[f"best_{standings.attack}"]))
    rank = standings.order.index(name) + 1
    cells = f'<td class="number">{rank}</td><td>{standings.groups[name]}</td>{html_page.number_cells(numbers)}'
    cells += html_page.duration_cell(train_seconds)
    if standings.flags:
        cells += f"<td>{'masked gradients?' if name in standings.flags else '–'}</td>"
    return html_page.row(escape(name), cells, is_best=name in standings.leading)


def _mean(values: "pd.Series[Any]") -> str:
    return format_percent(*mean_and_deviation(values.to_numpy(dtype=float)), unit="")


def _limits(standings: Standings, league: League) -> str:
    items = "".join(f"<li>{escape(limit)}</li>" for limit in what_cannot_be_said(standings, league.config))
    return f'<aside class="caveat"><ul>{items}</ul></aside>'


def _accuracy_and_time(standings: Standings) -> str:
    if not standings.order:
        return ""
    names = [f"{rank} {escape(name)}" for rank, name in enumerate(standings.order, 1)]
    legend = build_legend(
        [
            (colored_glyph("●", figures.WINNER_COLOR), f"winner of {join_words(names)}"),
            (colored_glyph("○", figures.PRESET_COLOR), "its untuned preset"),
            (line_mark(SKY_BLUE, "dashed"), "Pareto front"),
        ]
    )
    caption = (
        f"{standings.label} accuracy (mean over the seeds) against the seconds of the shortest training run. No other "
        "configuration is both quicker and more robust than one on the front."
    )
    plot = html_page.plot_block("cost", figures.plot_costs(standings.costs, standings.label), caption, legend)
    rows = standings.confirmation.table
    shown = pd.concat([rows[rows["contender"].eq(candidate)] for candidate in standings.costs["candidate"]])
    dots = html_page.plot_block(
        "seeds",
        confirmation_section.plot_seeds(shown, standings.attack),
        f"{standings.label} accuracy of each run. A dot is a seed, the stroke is their mean.",
    )
    return plot + dots


def _tuning(standings: Standings) -> str:
    table = standings.tuning
    if table.empty:
        return ""
    text = (
        f"Winner minus untuned preset under {standings.label}, on the same test images. Intervals and verdicts hold "
        "for all methods together."
    )
    words = " ".join(escape(sentence) for sentence in what_tuning_was_worth(standings))
    measured = table[table["first"].ne(table["second"])]
    plot = ""
    if len(measured):
        figure = figures.plot_intervals(measured.rename(columns={"first": "name"}), "tuned minus untuned")
        plot = html_page.plot_block("tuning", figure, "Points that tuning was worth, with simultaneous 95% intervals.")
    titles = {"method": "", "tuned": "number", "untuned": "number", "worth": "number"}
    titles |= {"simultaneous 95% interval": "number", "verdict": "", "p (Holm)": "number"}
    cells = [
        html_page.row(
            escape(row["first"]),
            html_page.number_cells(
                [
                    _mean(standings.runs(row["first"])[standings.attack]),
                    _mean(standings.runs(row["second"])[standings.attack]),
                    format_points(row["difference"]),
                    format_interval(row),
                ]
            )
            + f"<td><strong>{row['verdict']}</strong></td>"
            + html_page.number_cells([f"{row['p_value_holm']:.2g}"]),
        )
        for _, row in table.iterrows()
    ]
    return f"<p>{text} {words}</p>{plot}" + html_page.table(titles, cells)


def _pairs(standings: Standings) -> str:
    pairs = standings.pairs
    if pairs.empty:
        return ""
    titles = {"method": "", "against": "", "difference": "number", "simultaneous 95% interval": "number"}
    titles |= {"verdict": "", "p": "number", "p (Holm)": "number"}
    rows = [
        html_page.row(
            escape(row["first"]),
            f"<td>{escape(row['second'])}</td>"
            + html_page.number_cells([format_points(row["difference"]), format_interval(row)])
            + f"<td><strong>{row['verdict']}</strong></td>"
            + html_page.number_cells([f"{row['p_value']:.2g}", f"{row['p_value_holm']:.2g}"]),
        )
        for _, row in pairs.iterrows()
    ]
    text = (
        "The test is paired over the images. The variance over seeds is that of all winners together, because the few "
        "seeds of a pair often agree by chance; a method whose seeds differ far more has its own. Holm's test "
        "can tell a pair apart whose simultaneous interval just includes 0."
    )
    table = html_page.table(titles, rows, sortable=True)
    if len(pairs) > MAX_OPEN_PAIRS:
        table = f"<details><summary>{format_count(len(pairs), 'pair')}</summary>{table}</details>"
    return f"<p>{text}</p>{table}"


def read_curves(standings: Standings, folder: Path) -> dict[str, list[pd.DataFrame]]:
    """Return the epochs of each winner's training runs, by method; without those that were not evaluated.

    Args:
        standings: The standings.
        folder: The league's folder.
    """
    curves: dict[str, list[pd.DataFrame]] = {}
    for name in standings.order:
        for seed in standings.runs(name)["seed"]:
            file = folder / run_files.CONFIRM / name / f"seed-{seed}" / run_files.JOB_EPOCHS
            frame = _read_curve(file) if file.is_file() else pd.DataFrame()
            if len(frame):
                curves.setdefault(name, []).append(frame)
    return curves


def _read_curve(file: Path) -> pd.DataFrame:
    """Return the evaluated epochs of a training run; none, with a warning, if its table is damaged."""
    try:
        curve = read_csv(file)[["epoch", "pgd_accuracy"]].astype(float).dropna()
        if not curve["pgd_accuracy"].between(0, 1).all() or not curve["epoch"].between(1, MAX_EPOCHS).all():
            raise ValueError("an epoch or an accuracy is not possible")
    except (OSError, ValueError, KeyError, OverflowError) as error:  # pandas' own errors are ValueErrors
        _logger.warning("%s: is no table of epochs, and is left out: %s", file, first_line(error))
        return pd.DataFrame()
    return curve


def _curves(standings: Standings, folder: Path) -> str:
    curves = read_curves(standings, folder)
    if not curves:
        return ""
    caption = "PGD accuracy on the held-out images after each epoch of the winners' training, a line for each seed."
    return html_page.plot_block("curves", figures.plot_curves(curves), caption, line_legend(curves))


def _stability(standings: Standings) -> str:
    titles = {"method": "", "winner's runs that collapsed": "number", "preset's runs": "number", "trials": "number"}
    titles |= {"collapsed": "number", "diverged": "number", "failed": "number", "stopped early": "number"}
    titles |= {"ran to the end": "number"} | {title.replace("_", " "): "number" for title in QUARTILES}
    titles |= {"epochs": "number", "training": "number"}
    rows = []
    for name in [*standings.order, *standings.unjudged]:
        searches = standings.searches[standings.searches["method"].eq(name)]
        if searches.empty:
            continue
        search, preset = searches.iloc[0], standings.preset(name)
        of = [f"{standings.collapses(it)} of {len(standings.runs(it))}" if it else "–" for it in (name, preset)]
        numbers = [*of, str(int(search["trials"]))]
        numbers += [
            str(int(search[status]))
            for status in ("catastrophic_overfitting", "diverged", "failed", "stopped", "completed")
        ]
        numbers += [format_percent(float(search[title]), unit="") for title in QUARTILES]
        numbers += [f"{int(search['epochs']):,}", format_seconds(float(search["seconds"]))]
        rows.append(html_page.row(escape(name), html_page.number_cells(numbers)))
    text = (
        "A run or a trial collapses if it overfits catastrophically; runs that diverged count, too. The quartiles are "
        "those of the best PGD accuracy on validation images, in percent, over the trials that ran to their end. "
        "Those that collapsed, diverged or were stopped early are mostly the worse ones, and are only counted: a "
        "method may depend on its hyperparameters more than its quartiles show. The last columns are what a search "
        "has spent."
    )
    trials = {
        name: standings.results[name].trials.query("status == 'completed'").dropna(subset=["pgd_accuracy_best"])
        for name in [*standings.order, *standings.unjudged]
        if name in standings.results
    }
    plot = ""
    if any(len(frame) for frame in trials.values()):
        caption = "Best PGD accuracy of each trial that ran to its end, on validation images."
        plot = html_page.plot_block("trials", figures.plot_trials(trials), caption)
    return f"<p>{text}</p>{html_page.table(titles, rows)}{plot}"


def _best_and_last(standings: Standings) -> str:
    """Return the table of best and last weights, folded away."""
    content = confirmation_section.robust_overfitting(standings.confirmation)
    return f"<details><summary>Robust overfitting of each candidate</summary>{content}</details>" if content else ""


def _winners(standings: Standings, folder: Path) -> str:
    titles = {"method": "", "winner": "long", "untuned preset": "long"}
    rows, commands = [], []
    for name in standings.order:
        result = standings.results.get(name)
        if result is None or result.best is None:
            continue
        values = [result.best.hyperparameters, result.spec.start_from[0]]
        cells = "".join(f'<td class="long">{escape(format_hyperparameters(value))}</td>' for value in values)
        rows.append(html_page.row(escape(f"{name}, trial {result.best.trial}"), cells))
        search = quote_path(folder / name / run_files.TRIALS_TABLE)
        commands.append(f"tune-cure train --config {search} --trial {result.best.trial}")
    if not rows:
        return ""
    first = standings.order[0]
    text = (
        f"The first, {escape(first)}, has {escape(describe_accuracy(standings, first))}. Keys that no search has are "
        "in each method's spec.yaml. Its folder is that of an ordinary search."
    )
    code = escape("\n".join(commands))
    return (
        f"<p>{text}</p>{html_page.table(titles, rows)}<h3>Train a winner again</h3><p>As in its search, on "
        "its training images and with its seed. The networks that were judged here have other seeds, and other numbers."
        f"</p><pre><code>{code}</code></pre>{_judging_again(standings, folder)}"
        f"<h3>Go on with the league, or make this page anew</h3><pre><code>"
        f"{escape(f'tune-cure league --resume {quote_path(folder)}')}\n"
        f"{escape(f'tune-cure report {quote_path(folder)}')}</code></pre>"
    )


def _judging_again(standings: Standings, folder: Path) -> str:
    """Return the command that judges one of the networks of each method again; empty if all of them diverged."""
    runs = standings.confirmation.table
    seeds = runs[~runs["diverged"]].groupby("contender")["seed"].min()
    names = [name for name in standings.order if name in seeds]
    if not names:
        return ""
    confirmed = folder / run_files.CONFIRM
    words = ["tune-cure", "evaluate"]
    words += [f"{name}={confirmed / name / f'seed-{seeds[name]}' / run_files.JOB_MODEL}" for name in names]
    words += ["--examples", str(runs["examples"].max())]
    words += [] if runs["autoattack"].notna().any() else ["--no-autoattack"]
    return (
        "<h3>Judge a network of each method again</h3><p>On the same test images. Those of other seeds and of untuned "
        f"presets lie beside these.</p><pre><code>{escape(shlex.join(words))}</code></pre>"
    )
