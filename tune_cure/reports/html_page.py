"""Frame and parts of the HTML pages: sections, plots, tables, and how something was run.

A page is one file that needs no network; its Content-Security-Policy forbids requests. Its style is in report.css, what
it does in report.js.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tune_cure.utils.environment import Environment
from tune_cure.utils.files import replace_text
from tune_cure.utils.formatting import format_seconds, one_line, spell_out

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")


MANY_COLUMNS = 14
"""A table of more columns is printed in smaller type, so that it fits the paper."""


def write(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page in one step.

    Args:
        path: The file.
        title: The title of the window, plain text.
        parts: The content as HTML; empty parts are left out.
    """
    content = PAGE.substitute(
        title=escape(one_line(title)),
        style=_read("report.css"),
        plotly=get_plotlyjs(),
        body=spell_out("\n".join(part for part in parts if part)),
        script=_read("report.js"),
    )
    replace_text(path, content)


def _read(name: str) -> str:
    """Return a file of this folder that becomes a part of each page."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def section(name: str, title: str, content: str) -> str:
    """Return a section with a heading; `name` is the target of links to it."""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{content}</section>'


def section_links(titles: Mapping[str, str]) -> str:
    """Return links to sections, given their titles by their names."""
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in titles.items())
    return f'<nav aria-label="contents"><ul>{links}</ul></nav>'


def table(titles: Mapping[str, str], rows: Iterable[str], *, sortable: bool = False) -> str:
    """Return a table that scrolls sideways, also by keyboard, if the page is narrower than the table.

    The page's script then says which columns are out of sight.

    Args:
        titles: The CSS class of each column by its title: number, long, reason, cell or empty.
        rows: The rows, made by `row`.
        sortable: True if the page's script makes it sortable by each column and adds a field that filters its rows.
    """
    heads = "".join(f'<th scope="col" class="{column}">{title}</th>' for title, column in titles.items())
    classes = ["sortable"] * sortable + ["dense"] * (len(titles) > MANY_COLUMNS)
    opening = f'<table class="{" ".join(classes)}">' if classes else "<table>"
    content = f"{opening}<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scrollable" tabindex="0">{content}</div>'


def row(title: str, cells: str, *, is_best: bool = False) -> str:
    """Return a row of a table.

    Args:
        title: The content of the first cell, which names the row, as HTML.
        cells: The other cells, as HTML.
        is_best: True if the row is that of the best trial, which is highlighted.
    """
    opening = '<tr class="best">' if is_best else "<tr>"
    return f'{opening}<th scope="row">{title}</th>{cells}</tr>'


def number_cells(numbers: Iterable[str]) -> str:
    """Return table cells with numbers, aligned to the right."""
    return "".join(f'<td class="number">{number}</td>' for number in numbers)


def duration_cell(seconds: float) -> str:
    """Return a table cell with a duration in words, which the page's script sorts by its seconds."""
    return f'<td class="number" data-sort="{seconds:.6g}">{format_seconds(seconds)}</td>'


def plot_block(
    name: str, figure: go.Figure, caption: str, legend: str = "", *, small: bool = False, min_width: int = 0
) -> str:
    """Return a figure with its legend and caption. The page's script draws it.

    Screen readers are given its axes and caption.

    Args:
        name: Its name, unique on the page.
        figure: The plot. Plotly's JSON has no `<`, so nothing in it can end the script element early.
        caption: HTML.
        legend: HTML; empty for none.
        small: True if several stand side by side.
        min_width: The width in pixels below which it scrolls sideways; 0 shrinks it with the page.
    """
    data = f'<script type="application/json">{figure.to_json()}</script>'
    style = f' style="min-width: {min_width}px"' if min_width else ""
    plot = f'<div class="plot" id="plot-{name}" role="img" aria-label="{_label(figure, caption)}"{style}>{data}</div>'
    if min_width:
        plot = f'<div class="scrollable" tabindex="0">{plot}</div>'
    size = "small" if small else "wide"
    return f'<figure class="{size}">{legend}{plot}<figcaption>{caption}</figcaption></figure>'


def _label(figure: go.Figure, caption: str) -> str:
    """Return the axes and the caption of a figure without tags, for an attribute."""
    titles = [axis.title.text for axis in (figure.layout.yaxis, figure.layout.xaxis)]
    axes = f"{' against '.join(titles)}. " if all(titles) else ""
    return re.sub(r"<[^>]*>", "", axes + caption).replace('"', "&quot;")


def provenance_section(
    environment: Environment,
    yaml: str = "",
    yaml_title: str = "",
    *,
    name: str = "provenance",
    title: str = "How it was run",
) -> str:
    """Return the section on where and how something was run.

    Args:
        environment: The content of its environment.json.
        yaml: The configuration that was run; empty for none.
        yaml_title: The title of the configuration.
        name: The section's name.
        title: The section's title.
    """
    parts = []
    if environment.damage:
        parts.append(f"<p>{escape(environment.damage)}</p>")
    if "command" in environment.content:
        parts.append(f"<h3>Command</h3><pre><code>{escape(str(environment.content['command']))}</code></pre>")
    others = {key: content for key, content in environment.content.items() if key != "command"}
    if others:
        items = "".join(
            f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{_format_content(content)}</dd>"
            for key, content in others.items()
        )
        parts.append(f'<h3>Environment</h3><dl class="environment">{items}</dl>')
    if yaml:
        parts.append(f"<details><summary>{yaml_title}</summary><pre><code>{escape(yaml)}</code></pre></details>")
    return section(name, title, "".join(parts))


def _format_content(content: Any) -> str:
    """Return a JSON value as HTML in one line."""
    if isinstance(content, Mapping):
        return ", ".join(f"{escape(str(key))} {_format_content(inner)}" for key, inner in content.items())
    if isinstance(content, list):
        return ", ".join(map(_format_content, content)) or "none"
    return "none" if content is None else escape(str(content))
