"""Report of a search: one HTML page for a reader who has not seen the run.

`narrative` makes the summary, `figures.catalog` the plots, and this module the tables. Every string that comes from the
search's folder passes `html.escape`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from tune_cure.reports import html_page, narrative
from tune_cure.reports.figures import catalog
from tune_cure.reports.figures.catalog import Plot, status_glyph
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import describe_hyperparameter
from tune_cure.utils import environment
from tune_cure.utils.formatting import STATUS_WORDS, format_count, format_percent, format_value

MAX_ROWS = 200  # of a table on the page; trials.csv has all trials
MAX_AS_GOOD = 20  # trials in the table of those as good as the best
TITLES = {
    "summary": "Summary",
    "winner": "Winning hyperparameters",
    "as-good": "Trials as good as the best",
    **catalog.TITLES,
    "failed": "Trials that failed or diverged",
    "trials": "All trials",
}
"""The sections of the page in their order, with their titles."""


def write(result: SearchResult, plots: Iterable[Plot] | None = None) -> Path:
    """Write report.html into the search's folder, whether the search is running, interrupted or over.

    Args:
        result: The search.
        plots: `catalog.build_plots` of the search; None to build them here.

    Returns:
        The page's path.
    """
    directory, spec = result.directory, result.spec
    record = environment.read(directory)
    contents = {
        "summary": narrative.summarize_search(result, record.content),
        "winner": _table_of_winner(result),
        "as-good": _table_of_as_good(result),
        **_plots(result, catalog.build_plots(result) if plots is None else plots),
        "failed": _table_of_failures(result),
        "trials": _table_of_trials(result),
    }
    titles = {name: title for name, title in TITLES.items() if contents[name]}
    body = [
        _header(spec, result.trials),
        html_page.section_links(titles | {"provenance": "How it was run"}),
        "<main>",
        *(html_page.section(name, title, contents[name]) for name, title in titles.items()),
        html_page.provenance_section(
            record,
            (directory / run_files.SPEC).read_text(encoding="utf-8"),
            "The search space as resolved (spec.yaml)",
        ),
        "</main>",
    ]
    html_page.write(directory / run_files.REPORT, f"{spec.name}: hyperparameter search", body)
    return directory / run_files.REPORT


def _header(spec: SearchSpec, trials: pd.DataFrame) -> str:
    lines = ["Hyperparameter search for FGSM adversarial training with CURE curvature regularization"]
    if len(trials):
        start = datetime.fromtimestamp(float(trials["started"].min()), UTC)
        lines.append(f"Begun on {start:%d %B %Y at %H:%M} UTC")
    return f"<header><h1>{escape(spec.name)}</h1>" + "".join(f"<p>{line}</p>" for line in lines) + "</header>"


def _plots(result: SearchResult, plots: Iterable[Plot]) -> dict[str, str]:
    """Return the content of each section of plots; empty if the search has no plot for it."""
    blocks = dict.fromkeys(catalog.TITLES, "")
    for plot in plots:
        blocks[plot.section] += html_page.plot_block(
            plot.name, plot.figure, plot.caption, plot.legend, small=plot.small
        )
    if blocks["curves"] and (note := catalog.sampling_note(result)):
        blocks["curves"] = f"<p>{note}</p>{blocks['curves']}"
    if blocks["slices"]:
        text = (
            "Each point is a trial at its best epoch; bars are ± one standard error. Trials that were stopped early "
            "trained for fewer epochs, so some low points are low for that reason."
        )
        legend = catalog.slices_legend(result)
        blocks["slices"] = f'<p>{text}</p>{legend}<div class="grid">{blocks["slices"]}</div>'
    if blocks["overfitting"] and result.trials["catastrophic_overfitting_epoch"].isna().all():
        blocks["overfitting"] += "<p>No trial overfitted catastrophically.</p>"
    return blocks


def _table_of_winner(result: SearchResult) -> str:
    """Return the winning values beside those of `start_from` and the ranges they were searched in."""
    spec, best, baseline = result.spec, result.summary["best"], result.summary["baseline"]
    if best is None:
        return ""
    columns = {f"best (trial {best['trial']})": best["hyperparameters"]}
    if baseline and baseline["trial"] != best["trial"]:
        columns[f"start_from (trial {baseline['trial']})"] = baseline["hyperparameters"]
    titles = {"hyperparameter": "", **dict.fromkeys(columns, "number"), "searched in": "", "meaning": "long"}
    rows = []
    for key, distribution in spec.space.items():
        meaning = f'<td class="long">{escape(describe_hyperparameter(key))}</td>'
        cells = html_page.number_cells(escape(format_value(values.get(key))) for values in columns.values())
        rows.append(
            html_page.row(f"<code>{escape(key)}</code>", f"{cells}<td>{escape(str(distribution))}</td>{meaning}")
        )
    return html_page.table(titles, rows)


def _table_of_as_good(result: SearchResult) -> str:
    """Return the trials within two standard errors of the best."""
    if result.best is None:
        return ""
    best, others = result.best, result.as_good[result.as_good["trial"] != result.best.trial]
    if others.empty:
        return f"<p>No other trial is within two standard errors of trial {best.trial}.</p>"
    text = (
        f"{len(others):,} other {'trial is' if len(others) == 1 else 'trials are'} at most two standard errors behind "
        f"trial {best.trial}. On these images, chance alone may have put trial {best.trial} first. Choose among them "
        "by what else matters: clean accuracy, cost, or a penalty that is not at the end of its range. Or let "
        "<code>tune-cure confirm</code> decide on test images with several seeds."
    )
    if len(others) > MAX_AS_GOOD:
        text += f" <strong>The table shows the first {MAX_AS_GOOD}; trials.csv has them all.</strong>"
    has_fresh = bool(others["fresh_pgd_accuracy"].notna().any())
    titles = {"trial": "", "PGD accuracy": "number", **({"judged again": "number"} if has_fresh else {})}
    titles |= {"clean accuracy": "number", "epochs trained": "number"} | _hyperparameter_titles(result.spec)
    shown = pd.concat([result.leaders.head(1), others.head(MAX_AS_GOOD)])
    rows = [_row_as_good(row, result.spec, best.trial, has_fresh) for _, row in shown.iterrows()]
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _row_as_good(row: "pd.Series[Any]", spec: SearchSpec, best: int, has_fresh: bool) -> str:
    cells = [format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])]
    cells += [format_percent(row["fresh_pgd_accuracy"], row["fresh_pgd_accuracy_se"])] * has_fresh
    cells += [format_percent(row["clean_accuracy_best"]), str(row["epochs_trained"]), *_values(row, spec)]
    is_best = row["trial"] == best
    title = f"{row['trial']}{' <small>best</small>' * is_best}"
    return html_page.row(title, html_page.number_cells(cells), is_best=is_best)


def _table_of_failures(result: SearchResult) -> str:
    """Return the trials that failed or diverged, and those that failed on the way, with the reasons."""
    bad = result.trials["status"].isin(["failed", "diverged"]) | (result.trials["retries"] > 0)
    failures = result.trials[bad]
    if failures.empty:
        return ""
    titles = {"trial": "", "how it ended": "", "after epochs": "number", "retries": "number", "reason": "reason"}
    titles |= _hyperparameter_titles(result.spec)
    rows = []
    for _, row in failures.head(MAX_ROWS).iterrows():
        cells = f"<td>{status_glyph(row['status'])} {escape(STATUS_WORDS[row['status']])}</td>"
        cells += html_page.number_cells([str(row["epochs_trained"]), str(row["retries"])])
        cells += f'<td class="reason">{escape(str(row["reason"])) or "–"}</td>'
        rows.append(html_page.row(str(row["trial"]), cells + html_page.number_cells(_values(row, result.spec))))
    text = (
        f"{format_count(len(failures), 'trial')}. A trial with retries failed on the way and continued from its last "
        "checkpoint. It recovered if it did not end as failed."
    )
    if len(failures) > MAX_ROWS:
        text += f" <strong>The table shows the first {MAX_ROWS}; trials.csv has them all.</strong>"
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _table_of_trials(result: SearchResult) -> str:
    spec, trials, ranked = result.spec, result.trials, result.leaders
    if trials.empty:
        return ""
    order = pd.concat([ranked, trials.drop(ranked.index)])
    titles = {
        "trial": "",
        "how it ended": "",
        "PGD accuracy": "number",
        "clean accuracy": "number",
        "FGSM accuracy": "number",
        "best epoch": "number",
        "epochs trained": "number",
        **_hyperparameter_titles(spec),
    }
    best = result.best.trial if result.best else None
    rows = [_row_of_trial(row, spec, best) for _, row in order.head(MAX_ROWS).iterrows()]
    text = (
        "The best trial comes first. Trials that overfitted catastrophically, diverged or failed come after all "
        "others, and trials that were never judged come last. Accuracies are those of a trial's best epoch; ± is one "
        "standard error."
    )
    if len(order) > MAX_ROWS:
        text += f" <strong>The first {MAX_ROWS} of {len(order):,} are shown; trials.csv has them all.</strong>"
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _row_of_trial(row: "pd.Series[Any]", spec: SearchSpec, best: int | None) -> str:
    is_best = row["trial"] == best
    notes = {
        "best": is_best,
        "start_from": row["origin"] == "start_from",
        "Pareto front": bool(row.get("pareto_front")),
        "violates a constraint": row["feasible"] is False,
    }
    title = str(row["trial"]) + "".join(f" <small>{note}</small>" for note, applies in notes.items() if applies)
    status = f"{status_glyph(row['status'])} {escape(STATUS_WORDS[row['status']])}"
    if pd.notna(row["catastrophic_overfitting_epoch"]):
        status += f" in epoch {row['catastrophic_overfitting_epoch']:.0f}"
    numbers = [
        format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"]),
        format_percent(row["clean_accuracy_best"]),
        format_percent(row["fgsm_accuracy_best"]),
        "–" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}",
        str(row["epochs_trained"]),
        *_values(row, spec),
    ]
    return html_page.row(title, f"<td>{status}</td>{html_page.number_cells(numbers)}", is_best=is_best)


def _hyperparameter_titles(spec: SearchSpec) -> dict[str, str]:
    return {f"<code>{escape(key)}</code>": "number" for key in spec.space}


def _values(row: "pd.Series[Any]", spec: SearchSpec) -> list[str]:
    """Return a trial's hyperparameters as HTML."""
    return [escape(format_value(row[key])) for key in spec.space]
