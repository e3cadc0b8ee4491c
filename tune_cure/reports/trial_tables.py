"""Tables of trials in a search's report, as HTML: ties with the winner, rungs, failures, all trials."""

from html import escape
from typing import Any

import pandas as pd

from tune_cure.reports import html_page
from tune_cure.reports.figures.legends import status_glyph
from tune_cure.search.ranking import ranks_by_another_metric
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.control_group import describe_warning, format_correlation
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import describe_metric
from tune_cure.search.space.radii import format_setting
from tune_cure.utils.formatting import STATUS_WORDS, format_count, format_percent

MAX_ROWS = 200  # of a table on the page; trials.csv has all trials
MAX_TIES = 20  # trials in the table of ties


def table_of_ties(result: SearchResult) -> str:
    """Return the trials within two standard errors of the best, as HTML; empty before a trial is judged."""
    if result.best is None:
        return ""
    best, others = result.best, result.as_good[result.as_good["trial"] != result.best.trial]
    if others.empty:
        return f"<p>No other trial is within two standard errors of trial {best.trial}.</p>"
    text = (
        f"{len(others):,} other {'trial ties' if len(others) == 1 else 'trials tie'} with trial {best.trial}: at most "
        f"two standard errors behind it. On these images, chance alone may have put trial {best.trial} first. "
        "Choose among them by what else matters: clean accuracy, cost, or a penalty that is not at the end of its "
        "range. Or let "
        "<code>tune-cure confirm</code> decide on test images with several seeds."
    )
    if len(others) > MAX_TIES:
        text += f" <strong>The table shows the first {MAX_TIES}; trials.csv has them all.</strong>"
    has_fresh = bool(others["fresh_pgd_accuracy"].notna().any())
    titles = {"trial": "", **_objective_title(result.spec), "PGD accuracy": "number"}
    titles |= {"judged again": "number"} if has_fresh else {}
    titles |= {"clean accuracy": "number", "epochs trained": "number"} | _hyperparameter_titles(result.spec)
    shown = pd.concat([result.leaders.head(1), others.head(MAX_TIES)])
    rows = [_row_of_tie(row, result.spec, best.trial, has_fresh) for _, row in shown.iterrows()]
    return f"<p>{text}</p>" + html_page.table(titles, rows, sortable=True)


def _row_of_tie(row: "pd.Series[Any]", spec: SearchSpec, best: int, has_fresh: bool) -> str:
    cells = [*_objective(row, spec), format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])]
    cells += [format_percent(row["fresh_pgd_accuracy"], row["fresh_pgd_accuracy_se"])] * has_fresh
    cells += [format_percent(row["clean_accuracy_best"]), str(row["epochs_trained"]), *_values(row, spec)]
    is_best = row["trial"] == best
    title = f"{row['trial']}{' <small>best</small>' * is_best}"
    return html_page.row(title, html_page.number_cells(cells), is_best=is_best)


def table_of_rungs(result: SearchResult) -> str:
    """Return how well each rung predicted the end, by the control group, as HTML; empty without such a group."""
    if (group := result.control_group) is None:
        return ""
    counts = group.summarize()
    saved = result.summary["epochs_without_early_stopping"] - result.summary["epochs"]
    members = int(result.trials["control"].sum())
    chance = group.describe_winner()
    text = (
        f"Nothing stops {format_count(members, 'trial')} of a control group, which the seed has drawn, and those of "
        "<code>start_from</code>. Such a trial that a rung would have stopped shows how the stopped ones would have "
        "ended, so the numbers below are fair to all trials. The rank correlation (Kendall's) is the chance that of "
        "two trials the one ahead at the rung ends ahead, minus the chance that it ends behind: 0 is a coin "
        f"toss, 1 is certainty. Stopping saved {format_count(saved, 'epoch')}; sparing "
        f"{format_count(counts['trials_spared'], 'trial')} that a rung would have stopped took "
        f"{format_count(counts['epochs_of_spared'], 'epoch')}. {chance[0].upper()}{chance[1:]}."
    )
    warnings = [warning for rung in group.rungs if (warning := describe_warning(result.spec, rung))]
    text += "".join(f" <strong>{warning[0].upper()}{warning[1:]}.</strong>" for warning in warnings)
    titles = {"rung, epoch": "", "trials known to their end": "number", "rank correlation": "number"}
    titles |= {"95% interval": "number", "verdict": ""}
    rows = []
    for rung in group.rungs:
        tau = rung.correlation
        known = tau and [format_correlation(number) for number in (tau.value, tau.low, tau.high)]
        cells = [str(rung.trials), *([known[0], f"{known[1]} to {known[2]}"] if known else ["–", "–"])]
        rows.append(html_page.row(str(rung.epoch), f"{html_page.number_cells(cells)}<td>{rung.verdict}</td>"))
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def table_of_failures(result: SearchResult) -> str:
    """Return the trials that failed or diverged, and those that failed on the way, as HTML with the reasons."""
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
    return f"<p>{text}</p>" + html_page.table(titles, rows, sortable=True)


def table_of_trials(result: SearchResult) -> str:
    """Return all trials in order of rank, as HTML; empty if there are none."""
    spec, trials, ranked = result.spec, result.trials, result.leaders
    if trials.empty:
        return ""
    order = pd.concat([ranked, trials.drop(ranked.index)])
    titles = {
        "trial": "",
        "how it ended": "",
        **_objective_title(spec),
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
    if ranks_by_another_metric(spec):
        text += f" The objective is {describe_metric(spec.search.metrics[0])}."
    if len(order) > MAX_ROWS:
        text += f" <strong>The first {MAX_ROWS} of {len(order):,} are shown; trials.csv has them all.</strong>"
    return f"<p>{text}</p>" + html_page.table(titles, rows, sortable=True)


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
        has_said_it = row["status"] == "catastrophic_overfitting"
        status += f"{'' if has_said_it else '; overfitted'} in epoch {row['catastrophic_overfitting_epoch']:.0f}"
    if pd.notna(row.get("recovery_epoch")):
        status += f", recovered in epoch {row['recovery_epoch']:.0f}"
    numbers = [
        *_objective(row, spec),
        format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"]),
        format_percent(row["clean_accuracy_best"]),
        format_percent(row["fgsm_accuracy_best"]),
        "–" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}",
        str(row["epochs_trained"]),
        *_values(row, spec),
    ]
    return html_page.row(title, f"<td>{status}</td>{html_page.number_cells(numbers)}", is_best=is_best)


def _objective_title(spec: SearchSpec) -> dict[str, str]:
    """Return the title of the objective's column; empty if the best PGD accuracy is the objective."""
    return {"objective": "number"} if ranks_by_another_metric(spec) else {}


def _objective(row: "pd.Series[Any]", spec: SearchSpec) -> list[str]:
    return [format_percent(row["objective"])] if ranks_by_another_metric(spec) else []


def _hyperparameter_titles(spec: SearchSpec) -> dict[str, str]:
    return {f"<code>{escape(key)}</code>": "number" for key in spec.space}


def _values(row: "pd.Series[Any]", spec: SearchSpec) -> list[str]:
    """Return a trial's hyperparameters as HTML."""
    return [escape(format_setting(spec, key, row[key])) for key in spec.space]
