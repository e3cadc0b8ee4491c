"""The plan of a league, and what its searches found, as the command prints them."""

from collections.abc import Callable, Mapping

from rich.table import Table

from tune_cure.league.budget import coarse_methods
from tune_cure.league.cost import count_epochs, estimate_seconds
from tune_cure.league.folder import League
from tune_cure.search.budget import replay_budget
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import format_count, format_duration, format_percent, format_seconds, join_words


def say_budget(league: League, concurrent: int, say: Callable[[str], None], *, spent: float = 0.0) -> None:
    """Say what each method may spend, how that follows from the number of trials, and how long it takes.

    Args:
        league: The league, whose budget is known.
        concurrent: Trials at a time.
        say: Prints a line.
        spent: The share of all budgets that is spent already.
    """
    config = league.config
    assert config.budget is not None
    costs = config.costs
    mean = sum(cost.train_seconds for cost in costs.values()) / len(costs)
    listed = join_words(f"{name} {_short(cost.train_seconds)}" for name, cost in costs.items())
    say(f"an epoch of training takes (measured): {listed}; on average {_short(mean)}")
    whole = format_count(config.trials, "whole trial")
    if config.budget_by == "seconds":
        text = f"each method gets {_short(config.budget)} of training: {whole} at the average cost"
    else:
        text = f"each method gets {format_count(int(config.budget), 'epoch')} of training: {whole}"
    seconds = (1 - spent) * estimate_seconds(config.budget_by, config.budget, costs, concurrent)
    left = f"{100 * spent:.0f}% of all budgets is spent; the rest takes" if spent else f"{len(costs)} searches take"
    say(
        f"{text}; running trials are stopped once it is spent. {left} about {format_duration(seconds)}, "
        f"{concurrent} trials at a time"
    )
    coarse = coarse_methods(config.budget, {name: cost.train_seconds for name, cost in costs.items()})
    if config.budget_by == "seconds" and coarse:
        say(
            f"warning: an epoch of {join_words(coarse)} is more than 5% of a budget, so the methods' training seconds "
            "may differ by more than that; raise --trials"
        )


def budget_table(league: League, specs: Mapping[str, SearchSpec]) -> Table:
    """Return what each method's budget is enough for."""
    config = league.config
    assert config.budget is not None
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("method", "seconds an epoch", "epochs", "whole trials"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for name, cost in config.costs.items():
        epochs = count_epochs(config.budget_by, config.budget, cost)
        whole = f"{epochs / specs[name].max_epochs:.1f}"
        table.add_row(name, _short(cost.train_seconds), f"{epochs:.0f}", whole)
    return table


def results_table(results: Mapping[str, SearchResult]) -> Table:
    """Return what each search has spent, and what its leader reached on validation images."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("method", "trials", "training", "spent", "trial", "PGD", "clean"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for name, result in results.items():
        best = result.best
        seconds = _short(float(result.epochs["train_seconds"].sum()))
        spent = f"{100 * replay_budget(result).share:.1f}%"
        numbers = ["–", "–", "–"]
        if best is not None:
            row = best.row
            pgd = format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])
            numbers = [str(best.trial), pgd, format_percent(row["clean_accuracy_best"])]
        table.add_row(name, str(len(result.trials)), seconds, spent, *numbers)
    return table


def _short(seconds: float) -> str:
    """Return a duration that may be below a second, tenths up to a minute: 0.42 s, 12.3 s, 5 min 20 s."""
    return f"{seconds:.1f} s" if 10 <= seconds < 60 else format_seconds(seconds)
