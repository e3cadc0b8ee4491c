"""The page of a comparison: whose winner is better, the searches side by side, how each went, what each searched."""

from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tune_cure.confirmation import comparison
from tune_cure.confirmation.comparison import Searches
from tune_cure.reports import html_page
from tune_cure.reports.comparison_text import (
    ERRORS_NOTE,
    format_difference,
    format_measure,
    side_by_side,
    verdict_basis,
)
from tune_cure.reports.figures.style import BEST_COLOR, BLUE, START_COLOR, accuracy_range, blank_figure
from tune_cure.utils.formatting import join_words

COLORS = (BLUE, BEST_COLOR, START_COLOR, "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
DASHES = ("solid", "8,4", "2,3", "10,3,2,3", "16,5")  # of pixels, as SVG and plotly write them
LONG = 3.0  # device hours from which a plot is in hours, not in minutes


def write(searches: Searches, path: Path) -> None:
    """Writes the page, complete in itself."""
    names = join_words(f"<code>{escape(name)}</code>" for name in searches)
    sections = {
        "verdicts": ("Whose winner is better", _verdicts(searches)),
        "warnings": ("Before you compare", _warnings(searches)),
        "table": ("Side by side", _table(searches)),
        "progress": ("Best so far", _progress(searches)),
        "spaces": ("What was searched", _spaces(searches)),
    }
    written = {name: of for name, of in sections.items() if of[1]}
    body = [
        f"<header><h1>{len(searches)} searches side by side</h1><p>{names}</p></header>",
        html_page.section_links({name: title for name, (title, _) in written.items()}),
        "<main>",
        *(html_page.section(name, title, content) for name, (title, content) in written.items()),
        "</main>",
    ]
    html_page.write(path, f"Comparison of {', '.join(searches)}", body)


def _verdicts(searches: Searches) -> str:
    verdicts = comparison.compare_winners(searches)
    titles = {"": "", "against": "", "verdict": "", "by": "", "difference": ""}
    rows = "".join(
        f'<tr><th scope="row">{escape(row["first"])}</th><td>{escape(row["second"])}</td>'
        + (
            f'<td>no verdict</td><td class="reason" colspan="2">{escape(row["reason"])}</td></tr>'
            if row["reason"]
            else f"<td><strong>{row['verdict']}</strong></td><td>{format_measure(row)}</td>"
            f"<td>{format_difference(row)}</td></tr>"
        )
        for _, row in verdicts.iterrows()
    )
    said = f"<p>{verdict_basis(verdicts)}</p>" if verdict_basis(verdicts) else ""
    return said + html_page.scrollable_table(html_page.header_cells(titles), rows)


def _warnings(searches: Searches) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in comparison.comparison_warnings(searches))
    return f'<aside class="caveat"><ul>{items}</ul></aside>' if items else ""


def _table(searches: Searches) -> str:
    titles = {"": "", **{escape(name): "" for name in searches}}
    rows = "".join(
        f'<tr><th scope="row">{escape(words)}</th>'
        + "".join(f'<td class="cell">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for words, cells in side_by_side(searches).items()
    )
    return html_page.scrollable_table(html_page.header_cells(titles), rows) + f"<p>{ERRORS_NOTE}.</p>"


def _progress(searches: Searches) -> str:
    lines = {name: comparison.leader_progress(result) for name, result in searches.items()}
    if all(line.empty for line in lines.values()):
        return ""
    metrics = join_words(dict.fromkeys(result.spec.search.metrics[0] for result in searches.values()))
    said = (
        "The objective of the trial that led, had the search ended there. Trials that overfitted catastrophically, "
        "diverged or failed count for nothing; judging the leaders again, at the end, is not in it. Device time is "
        "that of all trials together."
    )
    plots = html_page.plot_block(
        "epochs", plot_by_epochs(lines, metrics), "By epochs trained in all trials.", small=True
    )
    plots += html_page.plot_block("hours", plot_by_hours(lines, metrics), "By device time.", small=True)
    return f'<p>{said}</p>{line_legend(list(searches))}<div class="grid">{plots}</div>'


def plot_by_epochs(lines: dict[str, pd.DataFrame], metrics: str) -> go.Figure:
    """The leader's objective of each search after so many epochs: the frames of `comparison.progress` by name."""
    return _steps(lines, "epochs", 1, "epochs trained", metrics)


def plot_by_hours(lines: dict[str, pd.DataFrame], metrics: str) -> go.Figure:
    """As `by_epochs`, after so much device time."""
    most = max(float(line["device_hours"].iloc[-1]) for line in lines.values() if len(line))
    unit, parts = ("hours", 1) if most > LONG else ("minutes", 60)
    return _steps(lines, "device_hours", parts, f"device {unit}", metrics)


def _steps(lines: dict[str, pd.DataFrame], column: str, parts: int, x: str, y: str) -> go.Figure:
    figure = blank_figure(x, escape(y))
    for number, (name, line) in enumerate(lines.items()):
        color, dash = line_style(number)
        figure.add_trace(
            go.Scatter(
                name=escape(name),
                mode="lines",
                x=(parts * line[column].astype(float)).round(4).tolist(),
                y=line["objective"].astype(float).tolist(),
                hovertext=[f"trial {trial}" for trial in line["trial"]],
                hovertemplate=f"{escape(name)}: %{{y:.1%}} after %{{x:.4g}}, %{{hovertext}}<extra></extra>",
                line={
                    "color": color,
                    "dash": _pixels(dash),
                    "width": 2.5,
                    "shape": "hv",
                },
            )
        )
    furthest = parts * max(float(line[column].iloc[-1]) for line in lines.values() if len(line))
    figure.update_xaxes(range=[0, 1.03 * furthest])
    figure.update_yaxes(range=accuracy_range(pd.concat([line["objective"] for line in lines.values()]).astype(float)))
    return figure


def line_style(number: int) -> tuple[str, str]:
    """The color and dashes of a search's line: no two of the first 35 are alike in both."""
    return COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]


def _pixels(dash: str) -> str:
    return dash if dash == "solid" else ",".join(f"{pixels}px" for pixels in dash.split(","))


def line_legend(names: list[str]) -> str:
    """The HTML legend of both plots."""
    items = []
    for number, name in enumerate(names):
        color, dash = line_style(number)
        dashes = "" if dash == "solid" else f' stroke-dasharray="{dash}"'
        line = f'<line x1="0" y1="5" x2="40" y2="5" stroke="{color}" stroke-width="3"{dashes}/>'
        items.append(f'<li><svg width="40" height="10" aria-hidden="true">{line}</svg> {escape(name)}</li>')
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def _spaces(searches: Searches) -> str:
    spaces = comparison.compare_spaces(searches)
    differing = [f"<code>{escape(key)}</code>" for key in spaces.loc[spaces["differs"], "hyperparameter"]]
    said = (
        f"The searches differ in {join_words(differing)}, set in bold." if differing else "All searched the same space."
    )
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(row["hyperparameter"])}</code></th>'
        + "".join(f'<td class="cell">{_bold(row[name], row["differs"])}</td>' for name in searches)
        + "</tr>"
        for _, row in spaces.iterrows()
    )
    return f"<p>{said}</p>" + html_page.scrollable_table(
        html_page.header_cells({"": "", **{escape(name): "" for name in searches}}), rows
    )


def _bold(text: str, is_bold: bool) -> str:
    return f"<strong>{escape(text)}</strong>" if is_bold else escape(text)
