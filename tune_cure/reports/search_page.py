"""The report of a search: one HTML page, complete in itself, for a reader who has not seen the run.

Its words are made in `narrative`, its plots in `plots`, its frame in `page`, its tables here. Every string that comes
from disk passes `html.escape`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from tune_cure.reports import html_page, narrative
from tune_cure.reports.figures import catalog
from tune_cure.reports.figures.catalog import Plot, describe_hyperparameter, status_glyph
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils import environment
from tune_cure.utils.formatting import STATUS_WORDS, format_count, format_percent, format_value

MAX_ROWS = 200  # of the table; trials.csv has them all
MAX_AS_GOOD = 20
COLUMN_WORDS = {  # the table's columns between the trial's number and its hyperparameters
    "status": "how it ended",
    "pgd_accuracy_best": "PGD accuracy",
    "clean_accuracy_best": "clean accuracy",
    "fgsm_accuracy_best": "FGSM accuracy",
    "best_epoch": "best epoch",
    "epochs_trained": "epochs trained",
}


def write(result: SearchResult, drawn: list[Plot] | None = None) -> Path:
    """Writes report.html into the folder of a search, whether it runs, was interrupted or is over.

    Args:
        result: The search.
        drawn: `plots.of` of it, where they are there already.

    Returns:
        The page's path.
    """
    directory, spec = result.directory, result.spec
    record = environment.read(directory)
    sections = {
        "summary": ("Summary", narrative.summarize_search(result, record.content)),
        "winner": ("Winning hyperparameters", _winner(result)),
        "as-good": ("What cannot be told from it", _as_good(result)),
        **_plots(result, catalog.build_plots(result) if drawn is None else drawn),
        "failed": ("Trials that failed or diverged", _failed(result)),
        "trials": ("All trials", _table(result)),
    }
    written = {name: of for name, of in sections.items() if of[1]}
    body = [
        _header(spec, result.trials),
        html_page.section_links(
            {name: title for name, (title, _) in written.items()} | {"provenance": "How it was run"}
        ),
        "<main>",
        *(html_page.section(name, title, content) for name, (title, content) in written.items()),
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
    lines = ["Hyperparameter search for FGSM adversarial training with CURE curvature regularisation"]
    if len(trials):
        first = datetime.fromtimestamp(float(trials["started"].min()), UTC)
        lines.append(f"Begun on {first:%d %B %Y at %H:%M} UTC")
    return f"<header><h1>{escape(spec.name)}</h1>" + "".join(f"<p>{line}</p>" for line in lines) + "</header>"


def _winner(result: SearchResult) -> str:
    """The winning values beside those of start_from and the ranges they were searched in."""
    spec, best, baseline = result.spec, result.summary["best"], result.summary["baseline"]
    if best is None:
        return ""
    columns = {f"best (trial {best['trial']})": best["hyperparameters"]}
    if baseline and baseline["trial"] != best["trial"]:
        columns[f"start_from (trial {baseline['trial']})"] = baseline["hyperparameters"]
    head = html_page.header_cells(
        {"hyperparameter": "", **dict.fromkeys(columns, "number"), "searched in": "", "meaning": "long"}
    )
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(key)}</code></th>'
        + html_page.number_cells(escape(format_value(values.get(key))) for values in columns.values())
        + f'<td>{escape(str(distribution))}</td><td class="long">{escape(describe_hyperparameter(spec, key))}</td></tr>'
        for key, distribution in spec.space.items()
    )
    return html_page.scrollable_table(head, rows)


def _as_good(result: SearchResult) -> str:
    """The configurations within two standard errors of the best."""
    if result.best is None:
        return ""
    best, others = result.best, result.as_good[result.as_good["trial"] != result.best.trial]
    if others.empty:
        return f"<p>No other trial is within two standard errors of trial {best.trial}.</p>"
    are = "trial is" if len(others) == 1 else "trials are"
    said = (
        f"{len(others):,} other {are} at most two standard errors behind trial {best.trial}: on these images chance "
        "alone may have put it first. Among them, choose by what else matters (clean accuracy, cost, a penalty that "
        "is not at the end of its range), or let <code>tune-cure confirm</code> decide on test images and several "
        "seeds."
    )
    if len(others) > MAX_AS_GOOD:
        said += f" <strong>The first {MAX_AS_GOOD} of them; trials.csv has them all.</strong>"
    again = bool(others["fresh_pgd_accuracy"].notna().any())
    titles = {"trial": "", "PGD accuracy": "number", **({"judged again": "number"} if again else {})}
    titles |= {"clean accuracy": "number", "epochs trained": "number"}
    titles |= {f"<code>{escape(key)}</code>": "number" for key in result.spec.space}
    shown = pd.concat([result.leaders.head(1), others.head(MAX_AS_GOOD)])
    rows = "".join(_as_good_row(row, result.spec, best.trial, again) for _, row in shown.iterrows())
    return f"<p>{said}</p>" + html_page.scrollable_table(html_page.header_cells(titles), rows)


def _as_good_row(row: "pd.Series[Any]", spec: SearchSpec, best: int, again: bool) -> str:
    cells = [format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])]
    cells += [format_percent(row["fresh_pgd_accuracy"], row["fresh_pgd_accuracy_se"])] * again
    cells += [format_percent(row["clean_accuracy_best"]), str(row["epochs_trained"])]
    cells += [escape(format_value(row[key])) for key in spec.space]
    name = f"{row['trial']}{' <small>best</small>' * (row['trial'] == best)}"
    line = f'<th scope="row">{name}</th>{html_page.number_cells(cells)}'
    return f'<tr class="best">{line}</tr>' if row["trial"] == best else f"<tr>{line}</tr>"


def _plots(result: SearchResult, drawn: Iterable[Plot]) -> dict[str, tuple[str, str]]:
    """The sections of plots: each a title and its content."""
    by_section: dict[str, list[Plot]] = {}
    for plot in drawn:
        by_section.setdefault(plot.section, []).append(plot)
    sections = {}
    for name, title in catalog.TITLES.items():
        content = "".join(
            html_page.plot_block(plot.name, plot.figure, plot.caption, plot.legend, small=plot.small)
            for plot in by_section.get(name, [])
        )
        if name == "curves" and content and (note := catalog.sampling_note(result)):
            content = f"<p>{note}</p>{content}"
        if name == "slices" and content:
            said = "Each trial at its best epoch; bars are ± one standard error. Stopped trials had fewer epochs than "
            said += "those that ran to the end, so low points are in part young ones."
            content = f'<p>{said}</p>{catalog.slices_legend(result)}<div class="grid">{content}</div>'
        if name == "overfitting" and content and result.trials["catastrophic_overfitting_epoch"].isna().all():
            content += "<p>No trial overfitted catastrophically.</p>"
        sections[name] = (title, content)
    return sections


def _failed(result: SearchResult) -> str:
    """The trials that failed or diverged, and those that failed and were got over, with the reasons."""
    bad = result.trials["status"].isin(["failed", "diverged"]) | (result.trials["retries"] > 0)
    rows = result.trials[bad]
    if rows.empty:
        return ""
    titles = {"trial": "", "how it ended": "", "after epochs": "number", "retries": "number", "reason": "reason"}
    titles |= {f"<code>{escape(key)}</code>": "number" for key in result.spec.space}
    lines = "".join(
        f'<tr><th scope="row">{row["trial"]}</th>'
        f"<td>{status_glyph(row['status'])} {escape(STATUS_WORDS[row['status']])}</td>"
        + html_page.number_cells([str(row["epochs_trained"]), str(row["retries"])])
        + f'<td class="reason">{escape(str(row["reason"])) or "–"}</td>'
        + html_page.number_cells(escape(format_value(row[key])) for key in result.spec.space)
        + "</tr>"
        for _, row in rows.head(MAX_ROWS).iterrows()
    )
    said = f"{format_count(len(rows), 'trial')}. "
    said += "One with retries that ended otherwise failed on the way, and was got over."
    if len(rows) > MAX_ROWS:
        said += f" <strong>The first {MAX_ROWS}; trials.csv has them all.</strong>"
    return f"<p>{said}</p>" + html_page.scrollable_table(html_page.header_cells(titles), lines)


def _table(result: SearchResult) -> str:
    spec, trials = result.spec, result.trials
    if trials.empty:
        return ""
    ranked = result.leaders
    order = pd.concat([ranked, trials.drop(ranked.index)])
    titles = {"trial": "", **dict.fromkeys(COLUMN_WORDS.values(), "number"), COLUMN_WORDS["status"]: ""}
    titles |= {f"<code>{escape(key)}</code>": "number" for key in spec.space}
    best = result.best.trial if result.best else None
    rows = "".join(_table_row(row, spec, best) for _, row in order.head(MAX_ROWS).iterrows())
    said = "Best first; trials that overfitted catastrophically, diverged or failed come after all others, and those "
    said += "never judged last. Accuracies are those of a trial's best epoch, with the standard error in points."
    if len(order) > MAX_ROWS:
        said += f" <strong>The first {MAX_ROWS} of {len(order):,}; trials.csv has them all.</strong>"
    return f"<p>{said}</p>" + html_page.scrollable_table(html_page.header_cells(titles), rows)


def _table_row(row: "pd.Series[Any]", spec: SearchSpec, best: int | None) -> str:
    status = escape(STATUS_WORDS[row["status"]])
    if pd.notna(row["catastrophic_overfitting_epoch"]):
        status += f" in epoch {row['catastrophic_overfitting_epoch']:.0f}"
    notes = " <small>best</small>" * (row["trial"] == best) + " <small>start_from</small>" * (
        row["origin"] == "start_from"
    )
    notes += " <small>Pareto front</small>" * bool(
        row.get("pareto_front")
    ) + " <small>violates a constraint</small>" * (row["feasible"] is False)
    numbers = [
        format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"]),
        format_percent(row["clean_accuracy_best"]),
        format_percent(row["fgsm_accuracy_best"]),
        "–" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}",
        str(row["epochs_trained"]),
        *(escape(format_value(row[key])) for key in spec.space),
    ]
    ended = f"{status_glyph(row['status'])} {status}"
    cells = f'<th scope="row">{row["trial"]}{notes}</th><td>{ended}</td>{html_page.number_cells(numbers)}'
    return f'<tr class="best">{cells}</tr>' if row["trial"] == best else f"<tr>{cells}</tr>"
