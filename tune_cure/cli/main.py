"""The commands: what they take, what they print, how they exit. The only place that writes to the terminal.

Exit codes: 0 done; 1 ran, but no trial succeeded, or a full disk, a dead Ray or (seen by `watch`) something else ended
it; 2 bad input, one line, nothing
started; 130 interrupted, state saved.
"""

import argparse
import logging
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from tune_cure.cli import compare, confirm, export, search as cli_search, train, watch
from tune_cure.cli.live_view import LiveView, PlainView
from tune_cure.evaluation.metrics import standard_error
from tune_cure.reports import artifacts
from tune_cure.search import asha_replay, patience, ranking, results, run_files, trial_table
from tune_cure.search.space.config import LEAST_REDUCTION
from tune_cure.utils import environment
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.registry import did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        flags = re.findall(r"--[a-z_-]+", options.parser.format_help())
        options.parser.error(f"unknown argument {unknown[0]}{did_you_mean(unknown[0], flags)}")
    console = Console(soft_wrap=True, highlight=False, markup=False)  # [x] in a file name is no markup
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    logging.getLogger("tune_cure").setLevel(logging.INFO)
    try:
        return int(options.run(options, console))
    except TuneCureError as error:
        print(f"tune-cure: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tune-cure: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line; a parsed one has `run`, which takes it and a console and returns the exit code."""
    whole = _Parser(prog="tune-cure", description="Hyperparameter search for FGSM+CURE adversarial training.")
    version = environment.version("tune-cure") or "of a checkout that is not installed"
    whole.add_argument("--version", action="version", version=f"tune-cure {version}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    cli_search.add_parser(commands)
    train.add_parser(commands)
    confirm.add_parser(commands)
    compare.add_parser(commands)
    export.add_parser(commands)
    again = commands.add_parser("report", help="rebuild the tables and the report of a run from what is on disk")
    again.add_argument("directory", type=Path, metavar="FOLDER", help="the run's folder")
    again.set_defaults(run=_report, parser=again)
    replayed = commands.add_parser(
        "replay",
        help="what ASHA with other numbers would have done to a finished search",
        description="Replays the recorded epochs of a search for each pair of ASHA's numbers: what would have been "
        "stopped, and whether the winner would have been found. Record with search.scheduler=none for whole curves.",
    )
    replayed.add_argument("directory", type=Path, metavar="FOLDER", help="the run's folder")
    replayed.add_argument("--grace-period", nargs="+", type=int, default=[1, 2, 3], metavar="EPOCHS")
    replayed.add_argument("--reduction-factor", nargs="+", type=float, default=[2, 3, 4], metavar="FACTOR")
    replayed.set_defaults(run=_replay, parser=replayed)
    looking = commands.add_parser("watch", help="show a search that runs in another terminal")
    looking.add_argument("directory", type=Path, metavar="FOLDER", help="the run's folder; may not be there yet")
    looking.set_defaults(run=_watch, parser=looking)
    for command in (again, replayed, looking):
        command.add_argument("--verbose", action="store_true", help="show what Ray and Optuna say")
    return whole


def _report(options: argparse.Namespace, console: Console) -> int:
    try:
        page = artifacts.write_artifacts(results.SearchResult(options.directory))
    except OSError as error:
        raise cli_search.UsageError(f"{options.directory}: cannot be written: {error.strerror}") from error
    console.print(f"wrote {page}, and tables and figures beside it")
    return 0


def _replay(options: argparse.Namespace, console: Console) -> int:
    result = results.SearchResult(options.directory)
    spec = result.spec
    for grace_period in options.grace_period:
        if not 1 <= grace_period <= spec.max_epochs:
            raise cli_search.UsageError(
                f"--grace-period: 1 to {spec.max_epochs} epochs are possible, but found {grace_period}"
            )
    for factor in options.reduction_factor:
        if not LEAST_REDUCTION <= factor < math.inf:
            raise cli_search.UsageError(f"--reduction-factor: must be at least {LEAST_REDUCTION}, but found {factor:g}")
    if result.best is None:
        raise cli_search.UsageError(f"{options.directory}: no trial has been judged yet: there is nothing to replay")
    frame = asha_replay.write(options.directory, options.grace_period, options.reduction_factor)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("grace", "factor", "stopped", "epochs", "saved", "kept", "regret", "saved*", "kept*", "regret*"):
        table.add_column(title, justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        table.add_row(
            f"{row['grace_period']}", f"{row['reduction_factor']:g}", f"{row['stopped']}", f"{row['epochs']}",
            f"{100 * row['epochs_saved']:.0f}%", "yes" if row["winner_kept"] else "no",
            f"{100 * row['regret']:.1f}", f"{100 * row['epochs_saved_mean']:.0f}%",
            f"{100 * row['winner_kept_mean']:.0f}%", f"{100 * row['regret_mean']:.1f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "kept: whether the recorded winner runs on; regret: points lost; "
        f"*: mean over {asha_replay.ORDERS} other orders",
        style="dim",
    )
    whole, all_ = asha_replay.count_complete_curves(options.directory)
    console.print(f"\n{whole} of {all_} learning curves are complete; proposals are those of the recorded search")
    if whole < all_:
        console.print(
            "what the others would have become is not known, so regret may be larger: to choose with confidence, "
            "record a search with --set search.scheduler=none"
        )
    best = ranking.rank_trials(result.trials, spec).iloc[0]["objective"]
    error = standard_error(best, trial_table.judged_examples(spec))
    good = frame[frame["regret_mean"] <= error].sort_values("epochs_saved_mean", ascending=False)
    if len(good):
        numbers = (
            f"grace_period {good.iloc[0]['grace_period']:g}, reduction_factor {good.iloc[0]['reduction_factor']:g}"
        )
        console.print(
            f"most saved with a regret* of at most a standard error of the winner ({100 * error:.1f}): {numbers}"
        )
    console.print(f"wrote {options.directory / run_files.REPLAY}")
    return 0


def _watch(options: argparse.Namespace, console: Console) -> int:
    directory = options.directory
    if directory.exists() and not directory.is_dir():
        raise cli_search.UsageError(f"{directory}: is no folder")
    try:
        if not watch.is_begun(directory):
            console.print(f"waiting for a search in {directory}; Ctrl-C ends this")
        while not watch.is_begun(directory):
            time.sleep(watch.SECONDS)
        state = watch.follow(
            directory,
            lambda state: LiveView(state, console) if console.is_terminal else PlainView(state, console.print),
        )
    except KeyboardInterrupt:  # of the watching, not of the search
        return 0
    ended, planned = state.ends.total(), state.spec.search.trials
    if ended < planned and patience.is_search_over(result := results.SearchResult(directory)):
        early = cli_search.ended_early(patience.replay_patience(result).words)
        console.print(f"{ended} of {planned} trials have ended; the report: {directory / run_files.REPORT}\n{early}")
        return 0
    if ended < planned:
        resume = cli_search.resume_command(directory, str(directory))
        console.print(
            f"the search is not running any more; {ended} of {planned} trials have ended. Continue it with:\n  {resume}"
        )
        return 1
    console.print(f"all {ended} trials have ended; the report: {directory / run_files.REPORT}")
    return 0
