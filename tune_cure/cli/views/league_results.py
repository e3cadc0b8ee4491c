"""Output of a league when it ends: who wins, the standings, what tuning was worth, and what cannot be said."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.league.conclusions import (
    format_reversed_interval,
    what_cannot_be_said,
    what_tuning_was_worth,
    who_wins,
)
from tune_cure.league.folder import LeagueConfig
from tune_cure.league.standings import Standings
from tune_cure.utils.formatting import format_percent, format_points, format_seconds

UNBOUNDED = 10_000  # columns of a terminal in which every table fits
KEPT = ("method", "group")  # columns of the table that also the narrowest terminal shows


def print_standings(standings: Standings, config: LeagueConfig, console: Console) -> None:
    """Print what a league says of its methods.

    Args:
        standings: The standings.
        config: The league's settings.
        console: Where to print. If it is too narrow for all columns, the table has the most important ones.
    """
    for number, sentence in enumerate(who_wins(standings)):
        console.print(f"\n{sentence}" if number == 0 else sentence, style="bold" if number == 0 else None)
    if standings.order:
        console.print()
        console.print(_fitting_table(standings, console))
        console.print(
            "methods that share a letter cannot be told apart (Holm 1979, 5% for all pairs together); behind: points "
            "behind the first, with intervals that hold at 95% together; ±: standard deviation over the seeds; tuning: "
            "points above the untuned preset",
            style="dim",
        )
        if standings.confirmation.autoattack:
            console.print(standings.confirmation.autoattack, style="dim")
    for sentence in what_tuning_was_worth(standings):
        console.print(sentence)
    console.print("\nwhat cannot be said", style="bold")
    for limit in what_cannot_be_said(standings, config):
        console.print(f"- {limit}")


def _fitting_table(standings: Standings, console: Console) -> Table:
    """Return the table of methods with as many columns as the terminal has room for."""
    columns = _columns(standings)
    table = _table(columns)
    for title in [title for title in reversed(columns) if title not in KEPT]:
        if console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
            break
        del columns[title]
        table = _table(columns)
    return table


def _table(columns: Mapping[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in columns:
        table.add_column(title, justify="left" if title in KEPT else "right", no_wrap=True)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _columns(standings: Standings) -> dict[str, list[str]]:
    """Return the columns by their titles, the most important first, with a cell for each method, the best first."""
    labels, order = standings.confirmation.attack_labels, standings.order
    runs = {name: standings.runs(name) for name in order}
    gaps = [_row(standings.pairs, order[0], name) for name in order]
    tuning = standings.tuning.set_index("first")["difference"]
    shortest = standings.confirmation.shortest_trainings()

    def accuracies(attack: str) -> list[str]:
        return [format_percent(runs[name][attack].mean(), unit="") for name in order]

    spreads = [runs[name][standings.attack].std() for name in order]
    others = [name for name in COMPARED_ATTACKS if name != standings.attack and runs[order[0]][name].notna().any()]
    return {
        "method": order,
        "group": [standings.groups[name] for name in order],
        labels[standings.attack]: accuracies(standings.attack),
        "behind": ["" if row is None else format_points(0.0 - row["difference"]) for row in gaps],
        "95% interval": ["" if row is None else format_reversed_interval(row) for row in gaps],
        "tuning": [format_points(tuning[name]) if name in tuning else "" for name in order],
        "±": ["" if pd.isna(spread) else format_percent(spread, unit="") for spread in spreads],
        **{labels[attack]: accuracies(attack) for attack in others},
        "training": [format_seconds(float(shortest[name])) for name in order],
    }


def _row(pairs: pd.DataFrame, first: str, second: str) -> "pd.Series[Any] | None":
    rows = pairs[pairs["first"].eq(first) & pairs["second"].eq(second)]
    return None if rows.empty else rows.iloc[0]
