"""The report's figures for papers, as SVG and PNG: plotly's figures drawn by matplotlib, which needs no browser.

Supports only what the figures of this package use: lines, points, bars, contours, vertical lines and annotations, on
linear, logarithmic and category axes.
"""

import html
import io
import math
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import PercentFormatter

WIDE, SMALL = (6.5, 3.6), (3.2, 2.4)  # inches: the text's width of a page, and half of it
DOTS_PER_INCH = 200
POINTS = 0.75  # per pixel: plotly gives sizes in pixels, matplotlib takes points
CROSSED_CIRCLE = Path.make_compound_path(
    Path.unit_circle(), *(Path([(-0.7, -0.7 * slope), (0.7, 0.7 * slope)]) for slope in (1, -1))
)
MARKERS: dict[str, Any] = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-down": "v",
    "x": "X",
    "cross": "P",
    "line-ns": "|",
    "circle-x": CROSSED_CIRCLE,
}
DASHES: dict[str | None, Any] = {"dash": (0, (5, 3)), "dot": (0, (1, 2)), "solid": "-", None: "-"}
STEPS = {"hv": "steps-post", "vh": "steps-pre"}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with $ is no formula
    "svg.hashsalt": "tune_cure",  # the same run gives the same file
}


def draw_files(
    source: go.Figure, size: tuple[float, float], kinds: Iterable[str], *, dots_per_inch: int = DOTS_PER_INCH
) -> dict[str, bytes]:
    """Return the files of a plotly figure by their kinds.

    Args:
        source: The figure.
        size: Width and height in inches.
        kinds: svg and png.
        dots_per_inch: Resolution of a png.
    """
    figure = draw_figure(source, size)
    _lay_out(figure)
    files = {}
    for kind in kinds:
        content = io.BytesIO()
        with mpl.rc_context(STYLE):
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(content, format=kind, dpi=dots_per_inch, metadata=metadata)
        files[kind] = content.getvalue()
    return files


def _lay_out(figure: Figure) -> None:
    """Place a figure's axes, once for all its files: saving it with a layout engine does so anew for each."""
    engine = figure.get_layout_engine()
    assert engine is not None
    with mpl.rc_context(STYLE):
        engine.execute(figure)
    figure.set_layout_engine("none")


def draw_figure(source: go.Figure, size: tuple[float, float]) -> Figure:
    """Return a plotly figure drawn by matplotlib; `size` is width and height in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.4, color="#dddddd")
        axes.set_axisbelow(True)
        _set_axis(axes, "x", source.layout.xaxis)
        _set_axis(axes, "y", source.layout.yaxis)
        _draw_traces(figure, axes, source)
        _draw_shapes_and_notes(axes, source)
        _set_limits(axes, source)
        _add_legend(figure, axes)
        return figure


def _set_axis(axes: Axes, name: str, source: Any) -> None:
    """Give an axis ("x" or "y") the title, scale and ticks of plotly's axis `source`."""
    axis = getattr(axes, f"{name}axis")
    axis.set_label_text(html.unescape(source.title.text or ""))
    if source.type == "log":
        getattr(axes, f"set_{name}scale")("log")
        axis.set_minor_locator(mpl.ticker.NullLocator())
    if source.tickformat == ".0%":
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if source.tickvals is not None:
        ticks = [_position(source, value) for value in source.tickvals]
        axis.set_ticks(ticks, [html.unescape(str(text)) for text in source.ticktext])
    elif source.tickformat == "d":
        axis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    elif source.type == "category":
        axis.set_ticks(range(len(source.categoryarray)), [html.unescape(name) for name in source.categoryarray])
    if source.showticklabels is False:
        axis.set_ticks([])
        axes.spines[["left"]].set_visible(False)


def _draw_traces(figure: Figure, axes: Axes, source: go.Figure) -> None:
    num_bars = sum(trace.type == "bar" for trace in source.data)
    stacked_on: dict[Any, float] | None = {} if source.layout.barmode == "stack" else None
    bar_index = 0
    for trace in source.data:
        if trace.type == "scatter":
            _draw_scatter(axes, source, trace)
        elif trace.type == "contour":
            surface = axes.contourf(trace.x, trace.y, np.array(trace.z, dtype=float), levels=12, cmap="cividis")
            figure.colorbar(surface, ax=axes, format=PercentFormatter(1, decimals=0), pad=0.02)
        elif stacked_on is not None:
            _draw_stacked_bars(axes, trace, stacked_on)
        else:
            _draw_grouped_bars(axes, trace, bar_index, num_bars)
            bar_index += 1


def _draw_shapes_and_notes(axes: Axes, source: go.Figure) -> None:
    """Draw the vertical lines and the annotations."""
    for shape in source.layout.shapes:
        style = _line_style(shape.line.dash)
        width = POINTS * shape.line.width
        axes.axvline(shape.x0, color=_convert_color(shape.line.color), lw=width, ls=style, zorder=0.5)
    for note in source.layout.annotations:
        coordinates = axes.get_xaxis_transform() if note.yref in ("paper", "y domain") else axes.transData
        text, shift = html.unescape(note.text), POINTS * (note.xshift or 0)
        axes.annotate(text, (note.x, note.y), (shift, 0), xycoords=coordinates, textcoords="offset points", fontsize=7,
                      ha=note.xanchor or "center", va=note.yanchor or "center", color="#555555")  # fmt: skip


def _set_limits(axes: Axes, source: go.Figure) -> None:
    """Set the ranges of the axes. This comes last, since matplotlib widens them with each trace."""
    for name, axis in (("x", source.layout.xaxis), ("y", source.layout.yaxis)):
        if axis.range is not None:
            low, high = (10**end for end in axis.range) if axis.type == "log" else axis.range
            getattr(axes, f"set_{name}lim")(low, high)
        elif axis.rangemode == "tozero":
            getattr(axes, f"set_{name}lim")(0)


def _position(axis: Any, value: Any) -> Any:
    """Return the coordinate of a value on plotly's axis: for a category its index, else the value itself.

    A category that the axis does not list lies beyond its end, as in plotly, where the range leaves it out.
    """
    if axis.type != "category":
        return value
    names = list(axis.categoryarray)
    return names.index(value) if value in names else len(names)


def _positions(axis: Any, values: Iterable[Any]) -> list[float]:
    return [math.nan if value is None else float(_position(axis, value)) for value in values]


def _draw_scatter(axes: Axes, source: go.Figure, trace: Any) -> None:
    """Draw lines, points, or both, with their error bars and the area below them."""
    x, y = _positions(source.layout.xaxis, trace.x), _positions(source.layout.yaxis, trace.y)
    style: dict[str, Any] = {"linestyle": "none", "label": html.unescape(trace.name)}
    if "lines" in trace.mode:
        style |= {"color": _convert_color(trace.line.color), "linewidth": POINTS * trace.line.width}
        style |= {"linestyle": _line_style(trace.line.dash), "drawstyle": STEPS.get(trace.line.shape, "default")}
    if "markers" in trace.mode:
        symbol, color = trace.marker.symbol or "circle", _convert_color(trace.marker.color or trace.line.color)
        is_open = symbol.endswith("-open")
        style |= {"marker": MARKERS[symbol.removesuffix("-open")], "markersize": POINTS * 0.8 * trace.marker.size}
        style |= {"markerfacecolor": "none" if is_open else color, "alpha": trace.marker.opacity or 1.0}
        edge = _convert_color(trace.marker.line.color) if trace.marker.line.color else color
        style |= {"markeredgecolor": edge, "markeredgewidth": POINTS * (trace.marker.line.width or int(is_open))}
    axes.plot(x, y, **style)
    if trace.error_y.array is not None:
        errors = [float(error) for error in trace.error_y.array]
        color = _convert_color(trace.error_y.color or trace.line.color)
        axes.errorbar(x, y, yerr=errors, fmt="none", ecolor=color, elinewidth=0.8, capsize=2)
    if trace.fill:
        axes.fill_between(x, y, step="post", color=_convert_color(trace.fillcolor), linewidth=0)


def _line_style(dash: str | None) -> Any:
    """Return plotly's dashes of a line, a name or lengths such as "8px,4px", as matplotlib takes them."""
    if dash is None or "px" not in dash:
        return DASHES[dash]
    return 0, [POINTS * float(length.removesuffix("px")) for length in dash.split(",")]


def _draw_stacked_bars(axes: Axes, trace: Any, stacked_on: dict[Any, float]) -> None:
    """Draw vertical bars on top of those drawn before, and add their heights to `stacked_on` (height by place)."""
    below = [stacked_on.get(place, 0.0) for place in trace.x]
    label, color = html.unescape(trace.name), _convert_color(trace.marker.color)
    axes.bar(trace.x, trace.y, trace.width, bottom=below, label=label, color=color)
    stacked_on.update({place: low + high for place, low, high in zip(trace.x, below, trace.y, strict=True)})


def _draw_grouped_bars(axes: Axes, trace: Any, index: int, num_traces: int) -> None:
    """Draw horizontal bars beside those of the other traces; `index` is the trace's place among them."""
    height = 0.7 / num_traces
    places = [place + (index - (num_traces - 1) / 2) * height for place in range(len(trace.y))]
    axes.barh(places, trace.x, height, label=html.unescape(trace.name), color=_convert_color(trace.marker.color))
    axes.set_yticks(range(len(trace.y)), [html.unescape(name) for name in trace.y])


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 4 if figure.get_figwidth() > SMALL[0] else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=7)


def _convert_color(color: str) -> Any:
    """Return one of plotly's colors as matplotlib takes it: "rgba(…)" as a tuple of four fractions."""
    if not color.startswith("rgba"):
        return color
    *rgb, alpha = (float(part) for part in color[color.index("(") + 1 : -1].split(","))
    return (*(part / 255 for part in rgb), alpha)
