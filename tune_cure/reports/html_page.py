"""HTML pages that are complete in themselves: the frame, plots, tables, and where something ran.

Nothing on a page comes from a network; its Content-Security-Policy forbids it to ask. The looks are in report.css.
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

# The plots are drawn once the whole page is laid out, or the first ones would be given more room than they keep.
# Paper is smaller than the screen that they were drawn for, and a plot must be told so before it is printed. What is
# folded up could not be opened there.
SCRIPT = """
const config = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
const plots = document.querySelectorAll(".plot");
for (const plot of plots) {
  const figure = JSON.parse(plot.textContent);
  plot.replaceChildren();
  Plotly.newPlot(plot, {...figure, config});
}
function resize(size) {
  for (const plot of plots) Plotly.relayout(plot, size(plot.closest(".wide")));
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
  resize((wide) => wide ? {width: 680, height: 340} : {width: 330, height: 240});
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
  resize(() => ({width: null, height: null, autosize: true}));
});
"""


def write(path: Path, title: str, parts: Iterable[str]) -> None:
    """Writes a page of HTML `parts`, in one step."""
    content = PAGE.substitute(
        title=escape(title),
        style=Path(__file__).with_name("report.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        body="\n".join(part for part in parts if part),
        script=SCRIPT,
    )
    replace_text(path, content)


def section(name: str, title: str, content: str) -> str:
    """A titled part of a page."""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{content}</section>'


def header_cells(titles: Mapping[str, str]) -> str:
    """The cells of a table's head: each title with the class of its column."""
    return "".join(f'<th scope="col" class="{column}">{title}</th>' for title, column in titles.items())


def number_cells(of: Iterable[str]) -> str:
    """Cells of a table that are numbers."""
    return "".join(f'<td class="number">{number}</td>' for number in of)


def scrollable_table(heads: str, rows: str) -> str:
    """A table that scrolls sideways by itself where the page is narrower, by keyboard too."""
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scrollable" tabindex="0">{table}</div>'


def section_links(titles: Mapping[str, str]) -> str:
    """Links to a page's sections, by their names."""
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in titles.items())
    return f'<nav aria-label="contents"><ul>{links}</ul></nav>'


def plot_block(name: str, figure: go.Figure, caption: str, legend: str = "", *, small: bool = False) -> str:
    """A figure that the page's script draws, of full width or small; screen readers are given its axes and caption.

    Plotly's JSON has no `<`, so nothing in it can end the script element early.
    """
    data = f'<script type="application/json">{figure.to_json()}</script>'
    plot = f'<div class="plot" id="plot-{name}" role="img" aria-label="{_label(figure, caption)}">{data}</div>'
    size = "small" if small else "wide"
    return f'<figure class="{size}">{legend}{plot}<figcaption>{caption}</figcaption></figure>'


def _label(figure: go.Figure, caption: str) -> str:
    """What a figure shows, in words, for an attribute; `caption` and the axes' titles are HTML."""
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
    """The section on where and how something ran: environment.json, and the YAML of what ran, where there is one."""
    parts = []
    if environment.damage:
        parts.append(f"<p>{escape(environment.damage)}</p>")
    if "command" in environment.content:
        parts.append(f"<h3>Command</h3><pre><code>{escape(str(environment.content['command']))}</code></pre>")
    others = {key: content for key, content in environment.content.items() if key != "command"}
    if others:
        items = "".join(
            f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{_described(content)}</dd>" for key, content in others.items()
        )
        parts.append(f'<h3>Environment</h3><dl class="environment">{items}</dl>')
    if yaml:
        parts.append(f"<details><summary>{yaml_title}</summary><pre><code>{escape(yaml)}</code></pre></details>")
    return section(name, title, "".join(parts))


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        return ", ".join(f"{escape(str(key))} {_described(inner)}" for key, inner in content.items())
    if isinstance(content, list):
        return ", ".join(map(_described, content)) or "none"
    return "none" if content is None else escape(str(content))
