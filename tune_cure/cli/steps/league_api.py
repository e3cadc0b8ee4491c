"""The public function `league`, for scripts and notebooks: the steps of the command, with lines of progress."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tune_cure.cli import options as command_line
from tune_cure.cli.api import Settings, own_ray, read_seconds, read_settings
from tune_cure.cli.league import DEFAULT_TRIALS, LeagueOptions
from tune_cure.cli.steps import league_confirmation, league_run
from tune_cure.cli.views.confirmation import describe_time
from tune_cure.cli.views.league_view import LeagueState, PlainLeagueView
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.league.budget import BudgetUnit
from tune_cure.league.conclusions import what_cannot_be_said, what_tuning_was_worth, who_wins
from tune_cure.league.folder import League, LeagueConfig, find_given_up, is_league, is_searched
from tune_cure.league.standings import Standings
from tune_cure.reports.figures.notebook import pictures_of_confirmation
from tune_cure.reports.league import files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import draw_with, format_notebook, format_table
from tune_cure.utils.yaml_config import by_path, describe_differences, differences

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeagueResult:
    """A league of methods.

    Attributes:
        directory: The league's folder, with its tables and its page.
        searches: The search of each method, by its name.
        standings: What the outcomes say of all methods: `table`, `pairs`, `tuning`, `searches`, `costs` as data frames,
            `order`, `groups`, `flags`. None if no winner has been judged.
        conclusions: Who wins, what tuning was worth, and what cannot be said, in sentences; empty as `table`.
        page: league.html; None if no winner has been judged, or plotly is not installed.
        outcome: finished; or why the league is not over: interrupted, time, failing, disk, ray, or searches_only.
    """

    directory: Path
    searches: Mapping[str, SearchResult]
    standings: Standings | None
    conclusions: list[str]
    page: Path | None
    outcome: str

    @property
    def table(self) -> pd.DataFrame:
        """A row for each method and seed, the best method first, as in league.csv; empty if none has been judged."""
        return self.standings.table if self.standings else pd.DataFrame()

    @property
    def verdicts(self) -> pd.DataFrame:
        """A row for each pair of methods: the difference, its simultaneous interval, the verdict; empty as `table`."""
        return self.standings.pairs if self.standings else pd.DataFrame()

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: who wins, the accuracies of every seed, standings, verdicts."""
        if self.standings is None:
            return format_notebook(self, "no winner has been judged yet", f"all is in {self.directory}")
        means = self.table.groupby(["rank", "method", "groups"], as_index=False)[[*COMPARED_ATTACKS]].mean()
        verdicts = self.verdicts[["first", "second", "difference", "low", "high", "verdict"]]
        points = dict.fromkeys(("difference", "low", "high"), "{:+.1%}")
        tables = [
            format_table(means.dropna(axis=1, how="all"), dict.fromkeys(COMPARED_ATTACKS, "{:.1%}")),
            format_table(verdicts, points),
        ]
        return format_notebook(self, self.conclusions[0], " ".join(self.conclusions[1:]), tables)


def _draw(result: LeagueResult) -> str:
    return pictures_of_confirmation(result.standings.confirmation) if result.standings else ""


draw_with(LeagueResult, _draw)


def league(
    space: str | Path | Mapping[str, Any],
    methods: Sequence[str],
    *,
    trials: int = DEFAULT_TRIALS,
    budget_by: BudgetUnit = "seconds",
    output: str | Path | None = None,
    settings: Settings = (),
    data_root: str | Path | None = None,
    resume: bool = False,
    time_budget: float | str | None = None,
    seeds: int = 3,
    examples: int | None = None,
    train_images: int | None = None,
    autoattack: bool = True,
    searches_only: bool = False,
    address: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> LeagueResult:
    """Search several methods on equal budgets, retrain winners and untuned presets, and say who wins.

    A folder that holds the same league is read: a notebook's cell can be run twice. What is judged is not judged again.
    Ctrl-C ends the searches with all state saved; the result's `outcome` is then `interrupted`.

    Args:
        space: What all methods share: a YAML file, the name of a bundled search space, or a mapping with its keys.
        methods: Who takes part: `cure`, `again=cure`, `mine=mine.yaml`; at least two.
        trials: Whole trials that a method of average cost can train with its budget.
        budget_by: What is equal for all methods: `seconds` or `epochs` of training.
        output: The league's folder; None takes a new folder below results/.
        settings: Overrides of single keys: `{"training.epochs": 5}` or `["training.epochs=5"]`.
        data_root: Folder of the data; None leaves `data.root` as it is.
        resume: Continue the searches in the league's folder.
        time_budget: Seconds, or a text such as `2h`, after which the searches end; None is without limit.
        seeds: Trainings of each winner and each untuned preset.
        examples: Test images to judge on; None is all.
        train_images: Training images of these trainings; None is all.
        autoattack: Judge by AutoAttack, too, not by PGD-50-10 alone.
        searches_only: End after the searches; the same call without it goes on.
        address: Address of a Ray cluster to join; None starts a Ray on this machine, and ends it afterwards.
        verbose: Show what Ray and Optuna say.
        quiet: Print no progress.

    Raises:
        TuneCureError: The league cannot be run as asked for, or the folder holds something else, or the same league
            before its searches have ended and `resume` is False.
    """
    options = LeagueOptions(
        space="space" if isinstance(space, Mapping) else str(space),
        methods=tuple(methods),
        trials=trials,
        budget_by=budget_by,
        settings=read_settings(settings),
        data_root=None if data_root is None else str(data_root),
        output=None if output is None else Path(output),
        time_budget=read_seconds(time_budget),
        seeds=seeds,
        examples=examples,
        train_images=train_images,
        no_autoattack=not autoattack,
        searches_only=searches_only,
        address=address,
        verbose=verbose,
    )
    content = dict(deepcopy(space)) if isinstance(space, Mapping) else None
    if options.output is not None and is_league(options.output):
        options = _take_up(options, content, resume=resume)
        content = None
    elif resume:
        raise TuneCureError(f"{output}: holds no league to resume")
    return _run(options, content, quiet=quiet)


def _run(options: LeagueOptions, content: dict[str, Any] | None, *, quiet: bool) -> LeagueResult:
    """Run what is left of a league, and return what is in its folder then."""
    say = command_line.progress(quiet)
    prepared = league_run.prepare(options, content)
    for note in prepared.notes:
        say(note)
    modules = own_part_files(*prepared.specs.values())
    with own_ray(modules, options.address, options.verbose), league_run.hold(prepared, options, say):
        searches = prepared.league.results()
        if not is_searched(searches, prepared.league):
            view = PlainLeagueView(LeagueState(), say)
            searches = league_run.run_searches(prepared, view, options, lambda: None)
            league_run.write_results(searches, _logger.warning)
            say_where_logs_are(say)
        else:
            league_run.write_missing_results(searches, _logger.warning)
        for line in league_run.explain_given_up(prepared.league, searches).values():
            _logger.warning("%s", line)
        outcome = _describe_outcome(searches, prepared.league)
        if outcome == "finished" and not options.searches_only:
            _confirm(prepared, options, quiet=quiet)
        return _read_result(prepared.league, searches, "searches_only" if options.searches_only else outcome)


def _take_up(options: LeagueOptions, content: dict[str, Any] | None, *, resume: bool) -> LeagueOptions:
    """Return options that go on with the league in the folder of `options.output`.

    Raises:
        TuneCureError: It is another league, or its searches have not ended and `resume` is False.
    """
    assert options.output is not None
    there, asked = League.read(options.output), league_run.read_config(options, deepcopy(content), [])
    before, now = (by_path(_list_settings(config)) for config in (there.config, asked))
    if changes := list(differences(before, now)):
        listed = describe_differences(changes)
        raise TuneCureError(f"{options.output}: holds another league: {listed}; name another output")
    if not resume and not is_searched(there.results(), there):
        raise TuneCureError(f"{options.output}: the searches of its league have not ended; resume=True continues them")
    return replace(options, resume=options.output, settings=())


def _list_settings(config: LeagueConfig) -> dict[str, Any]:
    """Return what makes a league another one: all settings but where its data is, and what was measured for it."""
    data = config.shared.get("data")
    content = config.model_dump(exclude={"space", "budget", "costs", "shared"}) | config.shared
    return content | {"data": {**data, "root": None} if isinstance(data, dict) else data}


def _describe_outcome(searches: Mapping[str, SearchResult], league: League) -> str:
    """Return how the searches ended: finished, or the outcome of the first that has not; without those given up."""
    if len(searches) < len(league.methods):
        return "interrupted"
    given_up = find_given_up(searches)
    outcomes = [result.outcome for name, result in searches.items() if name not in given_up]
    return next((outcome for outcome in outcomes if outcome not in ("", "finished")), "finished")


def _confirm(prepared: league_run.Prepared, options: LeagueOptions, *, quiet: bool) -> None:
    """Run what is left of the confirmation, and write its tables, those of the league, and league.html."""
    say = command_line.progress(quiet)
    confirmation = league_confirmation.prepare(prepared.league, prepared.first.data, options.address)
    if left := [job for job in confirmation.jobs if not job.is_done]:
        if all(job.candidate.name in confirmation.costs for job in left):
            say(describe_time(left, confirmation.costs, confirmation.concurrent))
        if confirmation.note:
            say(confirmation.note)
        failures = league_confirmation.run_jobs(confirmation, say, address=options.address, verbose=options.verbose)
        for job, reason in failures.items():
            _logger.warning("failed: %s: %s", job, reason)
        say_where_logs_are(say)
    league_confirmation.write_results(confirmation)


def _read_result(league: League, searches: Mapping[str, SearchResult], outcome: str) -> LeagueResult:
    """Return a league as its folder has it."""
    standings, page = files.read_standings(league), league.folder / files.PAGE
    if standings is None:
        return LeagueResult(league.folder, searches, None, [], None, outcome)
    conclusions = [
        *who_wins(standings),
        *what_tuning_was_worth(standings),
        *what_cannot_be_said(standings, league.config),
    ]
    return LeagueResult(league.folder, searches, standings, conclusions, page if page.is_file() else None, outcome)
