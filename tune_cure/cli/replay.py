"""The command `replay`: shows what ASHA with other numbers would have done to a finished search."""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.cli import options as command_line
from tune_cure.cli.options import UsageError
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.reports.figures.notebook import pictures_of_replay
from tune_cure.search import asha_replay, ranking, run_files, trial_table
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import LEAST_REDUCTION
from tune_cure.utils.formatting import draw_with, format_notebook, format_table

SHARES = (0.2, 0.4, 0.6)  # of the epochs of a trial: the grace periods that are tried by default
TITLES = ("grace", "factor", "stopped", "epochs", "saved", "kept", "regret", "saved*", "kept*", "regret*")


@dataclass(frozen=True)
class Replay:
    """Outcome of a search under other numbers of ASHA.

    Attributes:
        table: A row per pair of numbers: trials stopped, epochs saved, whether the winner was kept, points lost.
        trade_off: The rows that no other pair beats in both what is kept and what is saved, most kept first. The
            column `recommended` is true in one of them.
    """

    table: pd.DataFrame
    trade_off: pd.DataFrame

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: what each pair saves and loses, and the pairs worth choosing from."""
        columns = ["grace_period", "reduction_factor", "epochs_saved_mean", "regret_mean", "winner_kept_mean"]
        rows = self.trade_off[[*columns, "recommended"]]
        headline = f"{len(self.table)} pairs of ASHA's numbers; these are worth choosing from"
        return format_notebook(self, headline, tables=[format_table(rows, dict.fromkeys(columns[2:], "{:.1%}"))])


draw_with(Replay, lambda found: pictures_of_replay(found.table, found.trade_off))


@dataclass(frozen=True)
class ReplayOptions:
    """Command line of `replay`.

    Attributes:
        directory: The folder of the search.
        grace_period: Grace periods to try, in epochs; None tries `SHARES` of the epochs of a trial.
        reduction_factor: Reduction factors to try.
    """

    directory: Path
    grace_period: tuple[int, ...] | None
    reduction_factor: tuple[float, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Replays the recorded epochs of a search for each pair of ASHA's numbers: which trials would have been "
        "stopped, and whether the winner would have been found. Record with search.scheduler=none for whole curves."
    )
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="the run's folder")
    grace_help = "grace periods to try (default: 20, 40 and 60%% of the epochs of a trial)"
    parser.add_argument("--grace-period", nargs="+", type=int, metavar="EPOCHS", help=grace_help)
    factor_help = "reduction factors to try (default: 2 3 4)"
    parser.add_argument(
        "--reduction-factor", nargs="+", type=float, default=[2, 3, 4], metavar="FACTOR", help=factor_help
    )


def read_options(parsed: argparse.Namespace) -> ReplayOptions:
    """Return a parsed command line as options."""
    return command_line.read(ReplayOptions, parsed)


def run(options: ReplayOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    result = SearchResult(options.directory)
    grace_periods = _choose_grace_periods(result, options.grace_period)
    _check(result, grace_periods, options.reduction_factor)
    frame = asha_replay.write(result, grace_periods, options.reduction_factor)
    console.print(_table(frame))
    console.print(
        "kept: whether the recorded winner runs on; regret: points lost; "
        f"*: mean over {asha_replay.ORDERS} other orders",
        style="dim",
    )
    complete, total = asha_replay.count_complete_curves(result)
    console.print(f"\n{complete} of {total} learning curves are complete; proposals are those of the recorded search")
    if complete < total:
        console.print(
            "what the others would have become is not known, so regret may be larger: to choose with confidence, "
            "record a search with --set search.scheduler=none"
        )
    _print_trade_off(frame, result, console)
    console.print(f"wrote {options.directory / run_files.REPLAY}")
    return 0


def _choose_grace_periods(result: SearchResult, given: Sequence[int] | None) -> Sequence[int]:
    """Return the given grace periods, or `SHARES` of the epochs of a trial."""
    if given is not None:
        return given
    return sorted({max(1, round(share * result.spec.max_epochs)) for share in SHARES})


def _check(
    result: SearchResult,
    grace_periods: Iterable[int],
    reduction_factors: Iterable[float],
    names: tuple[str, str] = ("--grace-period", "--reduction-factor"),
) -> None:
    """Refuse numbers that ASHA cannot have, and a search without a judged trial.

    Args:
        result: The search.
        grace_periods: Grace periods to try, in epochs.
        reduction_factors: Reduction factors to try.
        names: What errors call the two.

    Raises:
        UsageError: The search cannot be replayed so.
    """
    most = result.spec.max_epochs
    for grace_period in grace_periods:
        if not 1 <= grace_period <= most:
            raise UsageError(f"{names[0]}: 1 to {most} epochs are possible, but found {grace_period}")
    for factor in reduction_factors:
        if not LEAST_REDUCTION <= factor < math.inf:
            raise UsageError(f"{names[1]}: must be at least {LEAST_REDUCTION}, but found {factor:g}")
    if result.best is None:
        raise UsageError(f"{result.directory}: no trial has been judged yet: there is nothing to replay")


def _weigh_by_noise(frame: pd.DataFrame, result: SearchResult) -> tuple[pd.DataFrame, float]:
    """Return `asha_replay.weigh` of a replay, and the noise that it was weighed by: the winner's standard error."""
    best = ranking.rank_trials(result.trials, result.spec).iloc[0]["objective"]
    error = standard_error(best, trial_table.judged_examples(result.spec))
    return asha_replay.weigh(frame, error), error


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        table.add_row(
            f"{row['grace_period']}", f"{row['reduction_factor']:g}", f"{row['stopped']}", f"{row['epochs']}",
            f"{100 * row['epochs_saved']:.0f}%", "yes" if row["winner_kept"] else "no",
            f"{100 * row['regret']:.1f}", f"{100 * row['epochs_saved_mean']:.0f}%",
            f"{100 * row['winner_kept_mean']:.0f}%", f"{100 * row['regret_mean']:.1f}",
        )  # fmt: skip
    return table


def _print_trade_off(frame: pd.DataFrame, result: SearchResult, console: Console) -> None:
    """Print the pairs that are worth choosing from, what each keeps and saves, and which one to take."""
    weighed, error = _weigh_by_noise(frame, result)
    table = Table(box=None, pad_edge=False, padding=(0, 1), title="what is kept, against what is saved")
    table.title_justify = "left"
    for title in ("grace", "factor", "regret", "regret*", "kept*", "saved*", ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for _, row in weighed.iterrows():
        note = "" if row["loss"] <= error else "loses more than the noise"
        table.add_row(
            f"{row['grace_period']:g}", f"{row['reduction_factor']:g}", f"{100 * row['regret']:.1f}",
            f"{100 * row['regret_mean']:.1f}", f"{100 * row['winner_kept_mean']:.0f}%",
            f"{100 * row['epochs_saved_mean']:.0f}%", "recommended" if row["recommended"] else note,
        )  # fmt: skip
    console.print(table)
    row = weighed[weighed["recommended"]].iloc[0]
    pair = f"grace_period {row['grace_period']:g}, reduction_factor {row['reduction_factor']:g}"
    noise = f"a standard error of the winner ({100 * error:.1f})"
    if row["loss"] <= error:
        console.print(f"most saved with a regret and a regret* of at most {noise}: {pair}")
    else:
        console.print(f"every pair loses more than {noise}; the least is lost with {pair}")


def replay(
    search: SearchResult | str | Path,
    *,
    grace_period: Sequence[int] | None = None,
    reduction_factor: Sequence[float] = (2, 3, 4),
) -> Replay:
    """Replay a search's recorded epochs for each pair of ASHA's numbers, and write replay.csv into its folder.

    Args:
        search: The search, or its folder. One without early stopping has whole curves, which say most.
        grace_period: Grace periods to try, in epochs; None tries 20, 40 and 60% of the epochs of a trial.
        reduction_factor: Reduction factors to try.

    Raises:
        TuneCureError: The search has no judged trial, or ASHA cannot have such a number.
    """
    result = SearchResult(command_line.folder_of(search))
    grace_periods = _choose_grace_periods(result, grace_period)
    _check(result, grace_periods, reduction_factor, ("grace_period", "reduction_factor"))
    table = asha_replay.write(result, grace_periods, reduction_factor)
    return Replay(table, _weigh_by_noise(table, result)[0])
