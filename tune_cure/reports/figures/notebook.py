"""Pictures of results in notebooks: PNG within the notebook's file, shown without scripts and without a network.

matplotlib draws them (`figures.static`). Plotly is imported when a picture is drawn.
"""

import base64
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import is_installed
from tune_cure.utils.formatting import draw_with

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from tune_cure.confirmation.judgement import Judgement
    from tune_cure.confirmation.verdicts import Confirmation

PIXELS_PER_INCH = 96  # of CSS
DOTS_PER_INCH = 128  # a compromise: notebooks keep their pictures in the file


def can_draw() -> bool:
    """Return True if the packages that draw pictures are there."""
    return is_installed("plotly") and is_installed("matplotlib")


def pictures(figures: Mapping[str, "go.Figure"], *, small: bool = False) -> str:
    """Return plotly figures as pictures side by side, as HTML.

    Args:
        figures: The figures by their captions, plain text.
        small: True for half of the usual width.
    """
    from tune_cure.reports.figures import static

    size = static.SMALL if small else static.WIDE
    blocks = []
    for caption, figure in figures.items():
        data = base64.b64encode(static.draw_files(figure, size, ["png"], dots_per_inch=DOTS_PER_INCH)["png"]).decode()
        width = round(PIXELS_PER_INCH * size[0])
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}" width="{width}">'
        style = "display: inline-block; margin: 4px 12px 4px 0"
        blocks.append(f'<figure style="{style}">{image}<figcaption>{escape(caption)}</figcaption></figure>')
    return f"<div>{''.join(blocks)}</div>"


def pictures_of_search(result: SearchResult) -> str:
    """Return learning curves and the trade-off of the accuracies; without matplotlib, how to install it."""
    if result.best is None:
        return ""
    if not can_draw():
        return _MISSING
    from tune_cure.reports.figures import catalog

    captions = {
        "curves": "PGD accuracy by epoch: a line for each trial",
        "tradeoff": "Clean against PGD accuracy: a point for each trial",
    }
    return pictures({captions[plot.name]: plot.figure for plot in catalog.build_overview(result)})


def pictures_of_confirmation(confirmation: "Confirmation") -> str:
    """Return the accuracies of every seed under each attack, at the first radius; without matplotlib, how to get it."""
    table = confirmation.table
    if table.empty:
        return ""
    runs = table[table["epsilon"].eq(table["epsilon"].iloc[0])]
    return _accuracies(runs, confirmation.attack_labels, "A dot is a seed, the stroke is their mean.")


def pictures_of_judgement(judgement: "Judgement") -> str:
    """Return the accuracies of each network under each attack; without matplotlib, how to install it."""
    from tune_cure.confirmation.plan import AS_IS

    runs = judgement.table().rename(columns={"model": "contender"}).assign(seed=AS_IS)
    return _accuracies(runs, judgement.attack_labels, f"On {judgement.examples:,} images.")


def _accuracies(runs: pd.DataFrame, labels: Mapping[str, str], note: str) -> str:
    if not can_draw():
        return _MISSING
    from tune_cure.evaluation.names import COMPARED_ATTACKS
    from tune_cure.reports.confirmation_section import plot_seeds

    attacks = [attack for attack in COMPARED_ATTACKS if attack in runs and runs[attack].notna().any()]
    titles = {**labels, "clean": "Clean"}
    figures = {f"{titles[attack]} accuracy. {note}": plot_seeds(runs, attack) for attack in attacks}
    return pictures(figures, small=True)


def pictures_of_log(log: pd.DataFrame) -> str:
    """Return the accuracies of a training run by epoch; without matplotlib, how to install it.

    Args:
        log: A row per epoch; `training.run.Run.log`.
    """
    if not can_draw():
        return _MISSING
    from tune_cure.evaluation.names import ACCURACY_LABELS
    from tune_cure.reports.figures.accuracies import plot_log

    lines = {label: column for column, label in ACCURACY_LABELS.items()}
    figure = plot_log(log, lines, "validation accuracy", errors=True)
    return pictures({"Accuracy by epoch; bars are one standard error": figure})


def pictures_of_progress(frames: Mapping[str, pd.DataFrame], metric: str) -> str:
    """Return the leader's objective of each search by epochs and by device time; empty if none has judged a trial.

    Args:
        frames: `lead.leader_progress` of each search by its name.
        metric: The title of the vertical axis.
    """
    if all(frame.empty for frame in frames.values()):
        return ""
    if not can_draw():
        return _MISSING
    from tune_cure.reports.figures import progress

    figures = {
        "Best so far, by epochs trained in all trials": progress.plot_by_epochs(frames, metric),
        "Best so far, by device time": progress.plot_by_hours(frames, metric),
    }
    return pictures(figures, small=True)


def pictures_of_replay(table: pd.DataFrame, trade_off: pd.DataFrame) -> str:
    """Return what each pair of ASHA's numbers saves against what it loses; without matplotlib, how to install it."""
    if not can_draw():
        return _MISSING
    from tune_cure.reports.figures.cost import plot_replay

    row = trade_off[trade_off["recommended"]].iloc[0]
    pair = f"grace period {row['grace_period']:g}, reduction factor {row['reduction_factor']:g}"
    return pictures({f"What is lost against what is saved; recommended: {pair}": plot_replay(table, trade_off)})


_MISSING = "<p>Pictures need matplotlib: <code>pip install matplotlib</code></p>"

draw_with(SearchResult, pictures_of_search)
