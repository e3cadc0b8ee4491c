"""The report's figures for papers: the same plotly figures drawn by matplotlib, which needs no browser, as SVG and PNG.

It knows what the figures of this package use of plotly, and no more: lines, points, bars, contours, vertical lines and
annotations, on linear, logarithmic and category axes.
"""

import html
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tune_cure.reports.figures.catalog import Plot
from tune_cure.search import run_files
from tune_cure.utils.files import replace_bytes

WIDE, SMALL = (6.5, 3.6), (3.2, 2.4)  # inches: the text's width of a page, and half of it
DOTS_PER_INCH = 200
POINTS = 0.75  # of a page in a pixel of a screen
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-down": "v", "x": "X", "cross": "P"}
DASHES = {"dash": (0, (5, 3)), "dot": (0, (1, 2)), "solid": "-", None: "-"}
STEPS = {"hv": "steps-post", "vh": "steps-pre"}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tune_cure",  # the same run gives the same file
}


def write_figures(directory: Path, drawn: Iterable[Plot]) -> Path:
    """Writes figures/NAME.svg and .png for each plot into a run's folder, and returns the folder of these."""
    folder = directory / run_files.FIGURES
    folder.mkdir(exist_ok=True)
    for plot in drawn:
        figure = draw_figure(plot.figure, SMALL if plot.small else WIDE)
        for kind, metadata in (("svg", {"Date": None}), ("png", {})):
            content = io.BytesIO()
            with mpl.rc_context(STYLE):
                figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            replace_bytes(folder / f"{plot.name}.{kind}", content.getvalue())
    return folder


def draw_figure(source: go.Figure, size: tuple[float, float]) -> Figure:
    """A plotly figure as one of matplotlib, of a size in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.4, color="#dddddd")
        axes.set_axisbelow(True)
        _axis(axes, "x", source.layout.xaxis)
        _axis(axes, "y", source.layout.yaxis)
        base: dict[Any, float] = {}
        bars = [trace for trace in source.data if trace.type == "bar"]
        for trace in source.data:
            if trace.type == "scatter":
                _scatter(axes, source, trace)
            elif trace.type == "contour":
                surface = axes.contourf(trace.x, trace.y, np.array(trace.z, dtype=float), levels=12, cmap="cividis")
                figure.colorbar(surface, ax=axes, format=PercentFormatter(1, decimals=0), pad=0.02)
            else:
                _bars(axes, trace, bars.index(trace), len(bars), base if source.layout.barmode == "stack" else None)
        for shape in source.layout.shapes:
            style = DASHES[shape.line.dash]
            axes.axvline(shape.x0, color=_color(shape.line.color), lw=POINTS * shape.line.width, ls=style, zorder=0.5)
        for note in source.layout.annotations:
            across = axes.get_xaxis_transform() if note.yref in ("paper", "y domain") else axes.transData
            words, shift = html.unescape(note.text), POINTS * (note.xshift or 0)
            axes.annotate(words, (note.x, note.y), (shift, 0), xycoords=across, textcoords="offset points", fontsize=7,
                          ha=note.xanchor or "center", va=note.yanchor or "center", color="#555555")  # fmt: skip
        _limits(axes, source)
        _legend(figure, axes)
        return figure


def _axis(axes: Axes, name: str, of: Any) -> None:
    axis = getattr(axes, f"{name}axis")
    axis.set_label_text(html.unescape(of.title.text or ""))
    if of.type == "log":
        getattr(axes, f"set_{name}scale")("log")
        axis.set_minor_locator(mpl.ticker.NullLocator())
    if of.tickformat == ".0%":
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if of.tickvals is not None:
        places = [_place(of, value) for value in of.tickvals]
        axis.set_ticks(places, [html.unescape(str(text)) for text in of.ticktext])
    elif of.tickformat == "d":
        axis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    if of.showticklabels is False:
        axis.set_ticks([])
        axes.spines[["left"]].set_visible(False)


def _limits(axes: Axes, source: go.Figure) -> None:
    """The ranges, once all is drawn: matplotlib would widen them."""
    for name, of in (("x", source.layout.xaxis), ("y", source.layout.yaxis)):
        if of.range is not None:
            low, high = (10**end for end in of.range) if of.type == "log" else of.range
            getattr(axes, f"set_{name}lim")(low, high)
        elif of.rangemode == "tozero":
            getattr(axes, f"set_{name}lim")(0)


def _place(axis: Any, value: Any) -> Any:
    """Where a value lies on an axis: one of categories by its number."""
    return list(axis.categoryarray).index(value) if axis.type == "category" else value


def _places(axis: Any, values: Iterable[Any]) -> list[float]:
    return [math.nan if value is None else float(_place(axis, value)) for value in values]


def _scatter(axes: Axes, source: go.Figure, trace: Any) -> None:
    x, y = _places(source.layout.xaxis, trace.x), _places(source.layout.yaxis, trace.y)
    name = html.unescape(trace.name)
    style: dict[str, Any] = {"linestyle": "none", "label": name}
    if "lines" in trace.mode:
        style |= {"color": _color(trace.line.color), "linewidth": POINTS * trace.line.width}
        style |= {"linestyle": DASHES[trace.line.dash], "drawstyle": STEPS.get(trace.line.shape, "default")}
    if "markers" in trace.mode:
        symbol, color = trace.marker.symbol or "circle", _color(trace.marker.color or trace.line.color)
        is_open = symbol.endswith("-open")
        style |= {"marker": MARKERS[symbol.removesuffix("-open")], "markersize": POINTS * 0.8 * trace.marker.size}
        style |= {"markerfacecolor": "none" if is_open else color, "alpha": trace.marker.opacity or 1.0}
        edge = _color(trace.marker.line.color) if trace.marker.line.color else color
        style |= {"markeredgecolor": edge, "markeredgewidth": POINTS * (trace.marker.line.width or 0)}
    axes.plot(x, y, **style)
    if trace.error_y.array is not None:
        errors = [float(of) for of in trace.error_y.array]
        color = _color(trace.error_y.color or trace.line.color)
        axes.errorbar(x, y, yerr=errors, fmt="none", ecolor=color, elinewidth=0.8, capsize=2)
    if trace.fill:
        axes.fill_between(x, y, step="post", color=_color(trace.fillcolor), linewidth=0)


def _bars(axes: Axes, trace: Any, index: int, of: int, stacked_on: dict[Any, float] | None) -> None:
    """Bars on top of each other where `stacked_on` has what lies below, else side by side."""
    label, color = html.unescape(trace.name), _color(trace.marker.color)
    if stacked_on is not None:
        below = [stacked_on.get(at, 0.0) for at in trace.x]
        axes.bar(trace.x, trace.y, trace.width, bottom=below, label=label, color=color)
        stacked_on.update({at: low + high for at, low, high in zip(trace.x, below, trace.y, strict=True)})
        return
    thick = 0.7 / of
    places = [place + (index - (of - 1) / 2) * thick for place in range(len(trace.y))]
    axes.barh(places, trace.x, thick, label=label, color=color)
    axes.set_yticks(range(len(trace.y)), [html.unescape(name) for name in trace.y])


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 4 if figure.get_figwidth() > SMALL[0] else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=7)


def _color(of: str) -> Any:
    """A color of plotly's as matplotlib takes it."""
    if not of.startswith("rgba"):
        return of
    *rgb, alpha = (float(part) for part in of[of.index("(") + 1 : -1].split(","))
    return (*(part / 255 for part in rgb), alpha)
