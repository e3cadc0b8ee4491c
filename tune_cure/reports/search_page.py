"""Report of a search: one HTML page for a reader who has not seen the run.

`narrative` makes the summary, `figures.catalog` the plots, `trial_tables` the tables of trials. Every string that comes
from the search's folder passes `html.escape`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import pandas as pd

from tune_cure.confirmation.saved import SavedConfirmationError, read_confirmation
from tune_cure.reports import confirmation_section, html_page, narrative, trial_tables
from tune_cure.reports.figures import catalog
from tune_cure.reports.figures.catalog import Plot
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.radii import format_distribution, format_setting
from tune_cure.training.config import describe_hyperparameter
from tune_cure.training.presets import METHOD, METHODS, NO_METHOD
from tune_cure.utils import environment

TITLES = {
    "summary": "Summary",
    "confirmation": "Confirmed on the test set",
    "winner": "Winning hyperparameters",
    "as-good": "Ties with the winner",
    **catalog.TITLES,
    "rungs": "How well early ranks predicted the end",
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
    confirmation, damage = None, ""
    try:
        confirmation = read_confirmation(directory)
    except SavedConfirmationError as error:  # the search itself can be reported
        damage = f"<p>{escape(str(error))}</p>"
    contents = {
        "summary": narrative.summarize_search(result, record.content, confirmation),
        "confirmation": confirmation_section.report_section(confirmation, result) if confirmation else damage,
        "winner": _table_of_winner(result),
        "as-good": trial_tables.table_of_ties(result),
        **_plots(result, catalog.build_plots(result) if plots is None else plots),
        "rungs": trial_tables.table_of_rungs(result),
        "failed": trial_tables.table_of_failures(result),
        "trials": trial_tables.table_of_trials(result),
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
    lines = [f"Hyperparameter search for adversarial training: {escape(_training(spec))}"]
    if len(trials):
        start = datetime.fromtimestamp(float(trials["started"].min()), UTC)
        lines.append(f"Begun on {start:%d %B %Y at %H:%M} UTC")
    return f"<header><h1>{escape(spec.name)}</h1>" + "".join(f"<p>{line}</p>" for line in lines) + "</header>"


def _training(spec: SearchSpec) -> str:
    """Return how all trials are trained, in a few words: the method, or else attack and regularizer."""
    method = spec.training.get(METHOD, NO_METHOD)
    if method != NO_METHOD:
        return METHODS.resolve(method).title
    config = spec.training_config({})
    return ", ".join(
        f"{key} {'searched' if key in spec.space else getattr(config, key)}" for key in ("attack", "regularizer")
    )


def _plots(result: SearchResult, plots: Iterable[Plot]) -> dict[str, str]:
    """Return the content of each section of plots; empty if the search has no plot for it."""
    blocks = dict.fromkeys(catalog.TITLES, "")
    for plot in plots:
        blocks[plot.section] += html_page.plot_block(
            plot.name, plot.figure, plot.caption, plot.legend, small=plot.small, min_width=plot.min_width
        )
    if blocks["progress"]:
        text = (
            "The objective of the trial that would have won if the search had ended there. The second judgment of the "
            "leaders at the end is not in it."
        )
        blocks["progress"] = f'<p>{text}</p><div class="grid">{blocks["progress"]}</div>'
    if blocks["cost"]:
        blocks["cost"] = f"<p>{catalog.budget_note(result)}</p>{blocks['cost']}"
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
    for key in spec.space:
        meaning = f'<td class="long">{escape(describe_hyperparameter(key))}</td>'
        cells = html_page.number_cells(
            escape(format_setting(spec, key, values.get(key))) for values in columns.values()
        )
        rows.append(
            html_page.row(
                f"<code>{escape(key)}</code>", f"{cells}<td>{escape(format_distribution(spec, key))}</td>{meaning}"
            )
        )
    return html_page.table(titles, rows)
