"""Page of a comparison: whose winner is better, the searches side by side, how each went, and what each searched."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from tune_cure.confirmation.searches import comparison
from tune_cure.confirmation.searches.comparison import Searches
from tune_cure.confirmation.searches.lead import leader_progress
from tune_cure.reports import html_page
from tune_cure.reports.comparison_text import (
    ERRORS_NOTE,
    format_difference,
    format_measure,
    side_by_side,
    verdict_basis,
)
from tune_cure.reports.figures.progress import line_legend, plot_by_epochs, plot_by_hours
from tune_cure.utils.formatting import join_words


def write(searches: Searches, path: Path) -> None:
    """Write the page.

    Args:
        searches: The searches by their names.
        path: The file.
    """
    names = join_words(f"<code>{escape(name)}</code>" for name in searches)
    sections = {
        "verdicts": ("Whose winner is better", _verdicts(searches)),
        "warnings": ("Before you compare", _warnings(searches)),
        "table": ("Side by side", _side_by_side(searches)),
        "progress": ("Best so far", _progress(searches)),
        "spaces": ("What was searched", _spaces(searches)),
    }
    filled = {name: (title, content) for name, (title, content) in sections.items() if content}
    body = [
        f"<header><h1>{len(searches)} searches side by side</h1><p>{names}</p></header>",
        html_page.section_links({name: title for name, (title, _) in filled.items()}),
        "<main>",
        *(html_page.section(name, title, content) for name, (title, content) in filled.items()),
        "</main>",
    ]
    html_page.write(path, f"Comparison of {', '.join(searches)}", body)


def _verdicts(searches: Searches) -> str:
    verdicts = comparison.compare_winners(searches)
    titles = {"winner of": "", "against that of": "", "verdict": "", "by": "", "difference": ""}
    rows = []
    for _, row in verdicts.iterrows():
        cells = f"<td>{escape(row['second'])}</td>"
        if row["reason"]:
            cells += f'<td>no verdict</td><td class="reason" colspan="2">{escape(row["reason"])}</td>'
        else:
            cells += f"<td><strong>{row['verdict']}</strong></td><td>{format_measure(row)}</td>"
            cells += f"<td>{format_difference(row)}</td>"
        rows.append(html_page.row(escape(row["first"]), cells))
    basis = verdict_basis(verdicts)
    return (f"<p>{basis}</p>" if basis else "") + html_page.table(titles, rows)


def _warnings(searches: Searches) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in comparison.comparison_warnings(searches))
    return f'<aside class="caveat"><ul>{items}</ul></aside>' if items else ""


def _side_by_side(searches: Searches) -> str:
    rows = [
        html_page.row(escape(title), "".join(f'<td class="cell">{escape(cell)}</td>' for cell in cells))
        for title, cells in side_by_side(searches).items()
    ]
    return html_page.table(_titles(searches), rows) + f"<p>{ERRORS_NOTE}.</p>"


def _titles(searches: Iterable[str]) -> dict[str, str]:
    """Return the columns of a table with a search in each."""
    return {"": "", **{escape(name): "" for name in searches}}


def _progress(searches: Searches) -> str:
    """Return the plots of the leader's objective; empty if no search has judged a trial."""
    frames = {name: leader_progress(result) for name, result in searches.items()}
    if all(frame.empty for frame in frames.values()):
        return ""
    metrics = join_words(dict.fromkeys(result.spec.search.metrics[0] for result in searches.values()))
    text = (
        "The lines show the objective of the trial that would have won if the search had ended there. Trials that "
        "overfitted catastrophically, diverged or failed are left out. The lines do not include the second judgment "
        "of the leaders at the end. Device time is the sum over all trials."
    )
    plots = html_page.plot_block(
        "epochs", plot_by_epochs(frames, metrics), "By epochs trained in all trials.", small=True
    )
    plots += html_page.plot_block("hours", plot_by_hours(frames, metrics), "By device time.", small=True)
    return f'<p>{text}</p>{line_legend(searches)}<div class="grid">{plots}</div>'


def _spaces(searches: Searches) -> str:
    spaces = comparison.compare_spaces(searches)
    differing = [f"<code>{escape(key)}</code>" for key in spaces.loc[spaces["differs"], "hyperparameter"]]
    text = "All searches have the same space."
    if differing:
        text = f"The searches differ in {join_words(differing)}, set in bold."
    rows = []
    for _, row in spaces.iterrows():
        cells = "".join(f'<td class="cell">{_emphasize(row[name], row["differs"])}</td>' for name in searches)
        rows.append(html_page.row(f"<code>{escape(row['hyperparameter'])}</code>", cells))
    return f"<p>{text}</p>" + html_page.table(_titles(searches), rows)


def _emphasize(text: str, is_bold: bool) -> str:
    return f"<strong>{escape(text)}</strong>" if is_bold else escape(text)
