"""Legends of the report's plots, as HTML: they wrap on narrow screens, which plotly's do not."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from tune_cure.reports.figures.style import STATUS_STYLES
from tune_cure.search.results import SearchResult
from tune_cure.utils.formatting import STATUS_WORDS


def status_glyph(status: str) -> str:
    """Return the symbol of a status in its color, as HTML."""
    style = STATUS_STYLES[status]
    return colored_glyph(style.glyph, style.color)


def entries_of_best(mark: str, result: SearchResult, shown: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the legend's entries of the best trial and of those of `start_from`, and for lines of the other trials.

    Args:
        mark: The mark of these trials: line or ring.
        result: The search.
        shown: The trials that the plot shows.
    """
    assert result.best is not None
    best = result.best.trial
    starts = shown.loc[shown["origin"] == "start_from", "trial"].drop_duplicates()
    other_starts = [str(number) for number in starts if number != best]
    yield f'<span class="{mark} best"></span>', f"best: trial {best}" + " (start_from)" * (best in set(starts))
    if other_starts:
        yield f'<span class="{mark} start"></span>', f"start_from: trial {', '.join(other_starts)}"
    if mark == "line" and len(shown) > len(other_starts) + 1:
        yield '<span class="line others"></span>', "other trials"


def entries_of_statuses(shown: pd.DataFrame) -> list[tuple[str, str]]:
    """Return an entry for each status that one of the trials shown has."""
    return [(status_glyph(status), words) for status, words in STATUS_WORDS.items() if status in set(shown["status"])]


def colored_glyph(character: str, color: str) -> str:
    """Return a mark that is one character; screen readers skip it."""
    return f'<span class="glyph" style="color:{color}" aria-hidden="true">{character}</span>'


def line_mark(color: str, style: str = "solid") -> str:
    """Return the mark of a line; `style` is a border style of CSS."""
    return f'<span class="line" style="border-top:2px {style} {color}"></span>'


def build_legend(entries: Iterable[tuple[str, Any]]) -> str:
    """Return a legend of pairs of a mark and what it means, both HTML."""
    items = "".join(f"<li>{mark}{words}</li>" for mark, words in entries)
    return f'<ul class="legend" aria-label="legend">{items}</ul>'
