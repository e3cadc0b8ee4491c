"""Draws the figures of docs/method.md and docs/results.md: `python tools/doc_figures.py`.

Text is drawn as paths and the ground is white, so that they look the same everywhere, on dark pages too. The colours,
Okabe and Ito's, can be told apart by the colour-blind; the strokes of the lines differ as well.
"""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RUNS = {  # of benchmarks/catastrophic_overfitting.py
    "no penalty": "no penalty",
    "CURE, lambda 0.05, batch statistics": "lambda 0.05",
    "CURE, lambda 0.2, batch statistics": "lambda 0.2",
}
ARMS = {  # of benchmarks/overfitting.py
    "fgsm_rs": "FGSM from a random start",
    "cure": "the same with CURE's penalty",
}
SEEDS = 10
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
STYLE = {"font.size": 8, "axes.linewidth": 0.6, "svg.hashsalt": "tune_cure", "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "font.family": "DejaVu Sans"}


def main() -> None:
    """Writes the figures into docs/."""
    with mpl.rc_context(STYLE):
        figures = {
            "catastrophic_overfitting": collapse(),
            "overfitting": overfitting(),
            "penalty": penalty(),
            "league": league("digits"),
            "league_cifar10": league("cifar10"),
        }
        for name, figure in figures.items():
            figure.savefig(ROOT / "docs" / f"{name}.svg", metadata={"Date": None})


def collapse() -> Figure:
    """FGSM and PGD accuracy by epoch without penalty, with a weak and with a sufficient one; a line for each seed."""
    frame = pd.read_csv(RESULTS / "catastrophic_overfitting_epochs.csv")
    figure = Figure(figsize=(7, 2.5), layout="constrained")
    panels = figure.subplots(1, len(RUNS), sharey=True)
    for axes, (run, title) in zip(panels, RUNS.items(), strict=True):
        for _, of in frame[frame["run"] == run].groupby("seed"):
            axes.plot(of["epoch"], of["fgsm_accuracy"], color=ORANGE, linewidth=1.1, linestyle=(0, (4, 1.5)))
            axes.plot(of["epoch"], of["pgd_accuracy"], color=BLUE, linewidth=1.5)
        axes.set(title=title, xlabel="epoch", xlim=(1, 16), ylim=(-0.02, 1.02), xticks=[1, 4, 8, 12, 16])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    panels[0].set_ylabel("accuracy under attack")
    panels[-1].text(15.8, 0.58, "FGSM", color=ORANGE, ha="right", weight="bold")
    panels[-1].text(15.8, 0.2, "PGD", color=BLUE, ha="right", weight="bold")
    return figure


def overfitting() -> Figure:
    """FGSM and PGD accuracy by epoch of each run of the two main arms, shaded where it was collapsed."""
    figure = Figure(figsize=(7, 2.7), layout="constrained")
    for row, (arm, title) in zip(figure.subfigures(len(ARMS)), ARMS.items(), strict=True):
        row.suptitle(title, fontsize=9, x=0.01, ha="left")
        for seed, axes in enumerate(row.subplots(1, SEEDS, sharey=True)):
            axes.set(xlim=(0.5, 12.5), ylim=(0, 0.65), xticks=[1, 12], yticks=[0, 0.2, 0.4, 0.6], title=f"seed {seed}")
            axes.title.set(fontsize=7, color=GREY)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            if not (summary := RESULTS / "overfitting" / f"{arm}-{seed}.json").exists():
                axes.text(6.5, 0.3, "not run", color=GREY, fontsize=6, ha="center")
                continue
            of = pd.read_csv(summary.with_suffix(".csv"))
            for epoch in json.loads(summary.read_text())["collapsed_epochs"]:
                axes.axvspan(epoch - 0.5, epoch + 0.5, color=ORANGE, alpha=0.18, linewidth=0)
            axes.plot(of["epoch"], of["fgsm_accuracy"], color=ORANGE, linewidth=1, linestyle=(0, (4, 1.5)))
            axes.plot(of["epoch"], of["pgd_accuracy"], color=BLUE, linewidth=1.3)
    for text, color, place in (("FGSM accuracy", ORANGE, 0.62), ("PGD accuracy", BLUE, 0.78), ("by epoch", GREY, 0.92)):
        figure.text(place, 0.975, text, color=color, fontsize=8, va="top")
    return figure


def league(data: str) -> Figure:
    """What each method of a league withstands untuned and tuned, and with each seed."""
    frame = pd.read_csv(RESULTS / f"league_{data}.csv")
    methods = list(frame["method"].unique())
    figure = Figure(figsize=(7, 1.05 + 0.15 * len(methods)), layout="constrained")
    axes = figure.subplots()
    for place, (_, runs) in enumerate(frame.groupby("method", sort=False)):
        untuned, tuned = runs["preset_autoattack"], runs["autoattack"]
        axes.plot([untuned.mean(), tuned.mean()], [place, place], color="#bbbbbb", linewidth=1.5, zorder=1)
        axes.plot(untuned, [place] * len(runs), "|", color=ORANGE, markersize=5, alpha=0.7)
        axes.plot(tuned, [place] * len(runs), "|", color=BLUE, markersize=5, alpha=0.7)
        axes.plot(untuned.mean(), place, "o", color=ORANGE, markerfacecolor="white", markersize=5)
        axes.plot(tuned.mean(), place, "o", color=BLUE, markersize=5)
    axes.set(yticks=range(len(methods)), yticklabels=methods, xlabel="accuracy under AutoAttack")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    means = frame.groupby("method", sort=False)[["preset_autoattack", "autoattack"]].mean()
    gaps = means.diff(axis=1)["autoattack"].abs()
    place = int(np.argmax(gaps > 0.1 * np.ptp(means.to_numpy())))  # the first with room for both words
    for column, text, color in (("preset_autoattack", "untuned", ORANGE), ("autoattack", "tuned", BLUE)):
        at = (means[column].iloc[place], place)
        axes.annotate(text, at, (0, 6), textcoords="offset points", color=color, ha="center")
    return figure


def penalty() -> Figure:
    """z, and how the gradient changes along it, where the loss is nearly flat and where it bends."""
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    flat, bent = figure.subplots(1, 2, sharex=True, sharey=True)
    little, much = np.array([[0.10, 0.0], [0.0, -0.20]]), np.array([[-1.3, 0.2], [0.2, 0.7]])
    _change(flat, little, "little curvature: a small penalty", label=(4, -10), said=(-30, 14))
    _change(bent, much, "much curvature: a large penalty", label=(-62, -2), said=(8, 8))
    return figure


Offset = tuple[float, float]  # of a text from what it names, in points


def _change(axes: Axes, hessian: np.ndarray, title: str, *, label: Offset, said: Offset) -> None:
    """Two pixels of an image x at the origin, with the contours of ℓ = g·u + ½ uᵀHu."""
    slope, z = np.array([0.62, 0.34]), np.array([0.8, 0.8])
    side = np.linspace(-0.5, 2.2, 80)
    points = np.stack(np.meshgrid(side, side), axis=-1)
    loss = points @ slope + 0.5 * np.einsum("...i,ij,...j", points, hessian, points)
    axes.contour(side, side, loss, levels=14, colors="#d5d5d5", linewidths=0.7, linestyles="solid")
    after = slope + hessian @ z
    _arrow(axes, np.zeros(2), z, GREY, dashed=True)
    _arrow(axes, np.zeros(2), slope, BLUE)
    _arrow(axes, z, z + slope, BLUE, faint=True)
    _arrow(axes, z, z + after, BLUE)
    _arrow(axes, z + slope, z + after, ORANGE)
    for at in (np.zeros(2), z):
        axes.plot(*at, "o", color="black", markersize=4)
    axes.annotate("x", (0, 0), (-9, -9), textcoords="offset points")
    axes.annotate("x + z", z, (-28, 4), textcoords="offset points")
    axes.annotate("∇ℓ(x)", slope, (4, -6), textcoords="offset points", color=BLUE)
    axes.annotate("∇ℓ(x + z)", z + after, label, textcoords="offset points", color=BLUE)
    middle = z + (slope + after) / 2
    axes.annotate("the penalty is\nthe length of this", middle, said, textcoords="offset points", color=ORANGE)
    axes.annotate("z", z / 2, (-9, 2), textcoords="offset points", color=GREY)
    axes.set(title=title, xlim=(-0.5, 2.2), ylim=(-0.45, 2.1), aspect="equal", xticks=[], yticks=[])
    axes.set(xlabel="a pixel", ylabel="another pixel")


def _arrow(
    axes: Axes, start: np.ndarray, end: np.ndarray, color: str, *, dashed: bool = False, faint: bool = False
) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    if dashed or faint:
        style |= {"linestyle": (0, (3, 2)), "linewidth": 1.2}
    axes.annotate("", end, start, arrowprops=style, alpha=0.4 if faint else 1)


if __name__ == "__main__":
    main()
